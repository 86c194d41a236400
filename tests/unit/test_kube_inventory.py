"""What the watches told, in whatever order they told it."""

import json

import pytest

from prism_operator.kube.inventory import MAX_ENDED, Inventory, RunKey
from prism_trainer.contract.report import Progress
from ray_objects import CLUSTER, head, ray_cluster, running, terminated, worker

KEY = RunKey("team", "demo")


def run(version=1, uid="run-1", **fields):
    metadata = {"name": "demo", "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {}, **fields}


@pytest.fixture
def inventory():
    return Inventory()


def clusters(inventory):
    return [cluster.uid for cluster in inventory.children(KEY)[0]]


def pods(inventory):
    return [(pod.name, pod.gone) for pod in inventory.children(KEY)[1]]


def test_the_echo_of_our_own_write_and_whatever_is_older_is_no_news(inventory):
    assert inventory.put_run(run(5))
    assert not inventory.put_run(run(5)) and not inventory.put_run(run(4, spec={"old": True}))
    assert inventory.put_run(run(6)) and inventory.version(KEY) == 6


def test_another_object_of_the_name_is_news_unless_it_is_older(inventory):
    inventory.put_run(run(5))
    assert inventory.put_run(run(9, uid="run-2")) and not inventory.put_run(run(7))
    assert inventory.run(KEY)["metadata"]["uid"] == "run-2"


def test_the_end_of_an_earlier_object_does_not_end_the_one_that_has_its_name(inventory):
    inventory.put_run(run(9, uid="run-2"))
    inventory.end_run(run(8))
    assert inventory.run(KEY)


def test_a_run_that_is_gone_is_not_brought_back_by_what_comes_late(inventory):
    inventory.put_run(run(5))
    inventory.end_run(run(7))
    assert not inventory.put_run(run(6)) and inventory.run(KEY) is None and not inventory.knows(KEY)


def test_versions_that_are_no_numbers_are_always_news(inventory):
    assert inventory.put_run(run("a")) and inventory.put_run(run("a"))


def test_a_settled_run_keeps_its_version_and_news_wakes_it(inventory):
    inventory.put_run(run(5))
    inventory.settle_run(KEY)
    assert inventory.run(KEY) is None and inventory.knows(KEY) and not inventory.put_run(run(5))
    assert inventory.put_run(run(6)) and inventory.run(KEY)


def test_what_only_the_api_server_and_kubectl_need_is_not_kept(inventory):
    raw = run(1)
    raw["metadata"] |= {"managedFields": [1], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}}
    inventory.put_run(raw)
    assert json.loads(inventory._runs[KEY])["metadata"]["annotations"] == {"mine": "1"} and "managedFields" in raw["metadata"]


def test_a_run_is_given_out_as_a_copy(inventory):
    inventory.put_run(run(1))
    inventory.run(KEY)["spec"]["x"] = 1
    assert inventory.run(KEY)["spec"] == {}


def test_clusters_and_pods_belong_to_the_run_of_their_label(inventory):
    assert inventory.put_cluster(ray_cluster()) == KEY and inventory.put_pod(head()) == KEY
    assert clusters(inventory) == ["cluster-1"] and len(pods(inventory)) == 1


@pytest.mark.parametrize(
    "labels", [{}, {"prism.dev/run": "demo"}, {"prism.dev/run": "demo", "prism.dev/stage": "sft", "prism.dev/attempt": "x"}]
)
def test_a_cluster_without_our_labels_is_not_ours(inventory, labels):
    raw = ray_cluster()
    raw["metadata"]["labels"] = labels
    assert inventory.put_cluster(raw) is None


def test_a_copy_of_a_cluster_under_another_name_is_not_ours(inventory):
    raw = ray_cluster()
    raw["metadata"]["name"] = "my-copy"
    assert inventory.put_cluster(raw) is None


@pytest.mark.parametrize("missing", ["prism.dev/run", "ray.io/cluster"])
def test_a_pod_without_labels_is_not_ours(inventory, missing):
    raw = head()
    del raw["metadata"]["labels"][missing]
    assert inventory.put_pod(raw) is None and inventory.drop_pod(raw) in (None, KEY) and pods(inventory) == []


def test_an_older_state_of_a_cluster_replaces_no_newer_one(inventory):
    inventory.put_cluster(ray_cluster(version=9, provisioned=-5))
    inventory.put_cluster(ray_cluster(version=8))
    assert inventory.children(KEY)[0][0].provisioned_at


def test_the_end_of_an_earlier_cluster_of_the_name_leaves_the_new_one(inventory):
    inventory.put_cluster(ray_cluster(uid="new", version=9))
    inventory.drop_cluster(ray_cluster(uid="old", version=8))
    assert clusters(inventory) == ["new"]


def test_a_cluster_that_is_gone_is_not_brought_back_by_an_answer_that_comes_late(inventory):
    inventory.put_cluster(ray_cluster(version=5))
    inventory.drop_cluster(ray_cluster(version=7))
    inventory.put_cluster(ray_cluster(version=6))
    assert clusters(inventory) == []


def test_the_last_words_of_a_head_that_is_gone_wait_for_a_pass(inventory):
    inventory.put_pod(head())
    inventory.drop_pod(head(containers={"ray-head": running(), "stage-sft": terminated(75, "words")}))
    assert [gone for _, gone in pods(inventory)] == [True]
    inventory.hear(KEY, inventory.unheard(KEY))
    assert pods(inventory) == [] and inventory.unheard(KEY) == ()


def test_pods_that_say_nothing_leave_nothing(inventory):
    inventory.put_pod(head())
    inventory.put_pod(worker())
    inventory.drop_pod(head())
    inventory.drop_pod(worker(containers={"ray-worker": terminated(1)}))
    assert pods(inventory) == [] and not inventory._children


def test_a_recount_drops_what_ended_unheard_and_takes_what_is_new(inventory):
    inventory.put_cluster(ray_cluster())
    inventory.put_pod(head())
    inventory.replace_children(KEY, inventory.uids(KEY), [ray_cluster()], [worker()])
    assert clusters(inventory) == ["cluster-1"] and [name for name, _ in pods(inventory)] == [worker()["metadata"]["name"]]


def test_a_recount_leaves_what_came_while_it_was_under_way(inventory):
    inventory.put_cluster(ray_cluster())
    known = inventory.uids(KEY)
    inventory.put_pod(head())
    inventory.replace_children(KEY, known, [ray_cluster()], [])
    assert len(pods(inventory)) == 1


def metadata(raw):
    return [raw["metadata"]]


def test_what_the_watches_told_in_full_is_not_missing(inventory):
    inventory.put_cluster(ray_cluster())
    inventory.put_pod(head())
    assert not inventory.unknown_clusters(metadata(ray_cluster())) and not inventory.unknown_pods(metadata(head()))
    assert set(inventory.children_by_uid().values()) == {KEY} and len(inventory.children_by_uid()) == 2


def test_what_is_new_or_newer_than_the_watches_told_is_missing(inventory):
    inventory.put_pod(head(version=100))
    assert inventory.unknown_clusters(metadata(ray_cluster())) == {KEY} == inventory.unknown_pods(metadata(head(version=101)))


def test_what_is_not_ours_or_has_ended_is_not_missing(inventory):
    somebodys = head()
    del somebodys["metadata"]["labels"]["ray.io/cluster"]
    inventory.put_pod(worker())
    inventory.drop_pod(worker())
    assert not inventory.unknown_pods([*metadata(somebodys), *metadata(worker())])


def test_running_stages_are_those_whose_container_runs(inventory):
    inventory.put_cluster(ray_cluster())
    inventory.put_pod(head())
    assert [(key, cluster.name, pod.address) for key, cluster, pod in inventory.running()] == [(KEY, CLUSTER, "10.0.0.7")]
    inventory.put_pod(head(containers={"stage-sft": terminated(0)}, version=101))
    assert list(inventory.running()) == []


def test_progress_goes_with_its_cluster(inventory):
    inventory.put_cluster(ray_cluster())
    inventory.progress[f"team/{CLUSTER}"] = Progress(stage="sft", attempt=1, advanced_at="", updated_at="")
    inventory.drop_cluster(ray_cluster())
    assert inventory.progress == {} and not inventory._children and not inventory._child_versions


def test_what_has_ended_is_remembered_within_bounds(inventory):
    for number in range(MAX_ENDED + 50):
        inventory.drop_pod(head(name=f"pod-{number}"))
    assert len(inventory._ended) == MAX_ENDED
