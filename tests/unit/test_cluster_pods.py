"""What is created for an attempt: whatever the plan, it holds what Kubernetes, KubeRay and the security standard ask for."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import at, make_run
from prism_operator.cluster import make_ray_cluster
from prism_operator.cluster.patches import patched
from prism_operator.decide import decide
from prism_operator.kube.facts import cluster_facts
from prism_operator.names import MAX_CLUSTER_NAME, STAGE_CONTAINER, cluster_name
from prism_operator.settings import Settings
from prism_trainer.contract.pod import PodJob

PVC = {"pvc": {"claimName": "claim", "subPath": "team"}}
SECRET = {"name": "secret", "key": "file"}
BUCKET = {"objectStore": {"uri": "s3://bucket/prefix", "endpoint": "http://store:9000", "credentials": SECRET}}
RUNS = {
    "plain": {},
    "bucket": {"storage": BUCKET, "secrets": {"huggingFace": SECRET, "wandb": SECRET, "judge": SECRET, "objectStore": SECRET}},
    "gpus": {"resources": {"gpusPerNode": 8, "gpuType": "NVIDIA-H100", "cpus": 4, "memory": "64Gi", "sharedMemory": "16Gi"}},
    "gang": {"engine": "verl", "resources": {"nodes": 3, "gpusPerNode": 8}},
    "reuse": {"clusterPolicy": "Reuse"},
    "queue": {"queue": {"name": "research", "priority": "high"}},
    "patched": {
        "podTemplate": {"spec": {"serviceAccountName": "me", "containers": [{"name": "stage", "env": [{"name": "A", "value": "1"}]}]}}
    },
}
ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def cluster(spec, name="demo", stage=None):
    run = make_run(name, **{"storage": PVC, **spec})
    run.raw["metadata"] |= {
        "namespace": "team",
        "uid": "run-uid",
        "labels": {"kueue.x-k8s.io/queue-name": "mine", "team": "vision"},
        "annotations": {"scheduling.k8s.io/group": "g", "note": "private"},
    }
    scene = run.stage("sft", stage).stage("rlvr").scene()
    return make_ray_cluster(scene.plan, decide(scene.plan, scene.observe(), at(0)).start, Settings(image_pull_secrets=("pull",)))


def templates(body):
    groups = [body["spec"]["headGroupSpec"], *body["spec"]["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def breaches_of_restricted(pod):
    """The Pod Security Standard `restricted`, read off its page."""
    spec, own = pod["spec"], pod["spec"].get("securityContext") or {}
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"volume {v['name']}" for v in spec.get("volumes", []) if set(v) - {"name"} - ALLOWED_VOLUMES]
    found += ["sysctls"] if own.get("sysctls") else []
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        context = container.get("securityContext") or {}
        merged = {**own, **context}
        checks = {
            "privileged": not context.get("privileged"),
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": merged.get("runAsNonRoot") is True,
            "runAsUser": merged.get("runAsUser") != 0,
            "seccompProfile": (merged.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"),
            "drop": "ALL" in (context.get("capabilities") or {}).get("drop", []),
            "add": set((context.get("capabilities") or {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "procMount": context.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, holds in checks.items() if not holds]
    return found


@pytest.mark.parametrize("spec", RUNS.values(), ids=RUNS)
class TestAnyCluster:
    def test_its_pods_pass_the_restricted_standard_and_carry_no_token(self, spec):
        for pod in templates(cluster(spec)):
            assert breaches_of_restricted(pod) == []
            assert pod["spec"]["automountServiceAccountToken"] is False and pod["spec"]["restartPolicy"] == "Never"

    def test_it_is_named_labelled_and_owned_by_its_run(self, spec):
        body = cluster(spec)
        own = {"prism.dev/run": "demo", "prism.dev/stage": "sft", "prism.dev/attempt": "1", "app.kubernetes.io/managed-by": "prism"}
        for labelled in (body, *templates(body)):
            assert own.items() <= labelled["metadata"]["labels"].items()
            assert "kueue.x-k8s.io/queue-name" in labelled["metadata"]["labels"] and "team" not in labelled["metadata"]["labels"]
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("run-uid", True, True)
        assert (body["metadata"]["name"], body["metadata"]["namespace"]) == ("demo-sft-a1", "team")

    def test_it_is_read_back_as_the_attempt_it_was_made_for(self, spec):
        body = cluster(spec)
        body["metadata"] |= {"uid": "u", "resourceVersion": "1"}
        facts = cluster_facts(body)
        assert (facts.run, facts.stage, facts.attempt, facts.owner_uid) == ("demo", "sft", 1, "run-uid")
        assert facts.config_digest and facts.num_workers == sum(group["replicas"] for group in body["spec"]["workerGroupSpecs"])

    def test_each_stage_finds_its_job_as_a_file(self, spec):
        head = templates(cluster(spec))[0]
        (jobs,) = [volume["downwardAPI"]["items"] for volume in head["spec"]["volumes"] if volume["name"] == "jobs"]
        stages = [c for c in head["spec"]["containers"] if c["name"].startswith(f"{STAGE_CONTAINER}-")]
        assert len(stages) == len(jobs) == len(head["metadata"]["annotations"])
        for container, item in zip(stages, jobs, strict=True):
            key = re.fullmatch(r"metadata\.annotations\['(.+)'\]", item["fieldRef"]["fieldPath"])[1]
            job = PodJob.model_validate_json(head["metadata"]["annotations"][key])
            assert container["name"] == f"stage-{job.job.stage}" and container["command"][-1] == f"/prism/jobs/{item['path']}"
            assert job.num_nodes == len(templates(cluster(spec))[1:]) * 2 + 1

    def test_every_mount_has_its_volume_and_no_name_or_path_comes_twice(self, spec):
        for pod in templates(cluster(spec)):
            volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
            assert len(volumes) == len(set(volumes))
            for container in pod["spec"]["containers"]:
                paths = [mount["mountPath"] for mount in container["volumeMounts"]]
                assert len(paths) == len(set(paths)) and {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)

    def test_a_secret_is_only_ever_named(self, spec):
        for pod in templates(cluster(spec)):
            for variable in (v for container in pod["spec"]["containers"] for v in container["env"]):
                assert not re.search("TOKEN|KEY|SECRET", variable["name"]) or "secretKeyRef" in variable.get("valueFrom", {})

    def test_the_same_plan_makes_the_same_object_and_it_is_plain_json(self, spec):
        assert json.dumps(cluster(spec)) == json.dumps(cluster(spec))

    def test_its_annotations_fit(self, spec):
        assert sum(len(value) for value in templates(cluster(spec))[0]["metadata"]["annotations"].values()) < 200_000


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,34}[a-z0-9])?", fullmatch=True)


@given(names, st.from_regex(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?", fullmatch=True), st.integers(1, 9999))
def test_a_clusters_name_is_a_label_of_at_most_50_characters_that_names_its_attempt(run, stage, attempt):
    name = cluster_name(run, stage, attempt)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= MAX_CLUSTER_NAME
    assert name.endswith(f"-a{attempt}") and name != cluster_name(run, stage, attempt + 1)


def test_the_longest_names_of_one_beginning_are_kept_apart():
    made = {cluster_name("r" * 35 + end, "s" * 19 + "a", 1) for end in "abcdef"}
    assert len(made) == 6


# -- patches -----------------------------------------------------------------------------------------------------------------------------

POD = templates(cluster({}))[0]
scalars = st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=3)
words = st.sampled_from(["name", "spec", "labels", "env", "value", "resources", "limits", "x", "y"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8)
named = st.sampled_from(["stage", "ray-head", "stage-sft", "mine"])
fields = st.dictionaries(st.sampled_from(["env", "resources", "lifecycle", "command", "tty"]), values, max_size=3)
containers = st.lists(st.tuples(named, st.booleans(), fields), max_size=4, unique_by=lambda given: given[0]).map(
    lambda given: [{**extra, "name": name, **({"image": "i"} if image else {})} for name, image, extra in given]
)
specs = st.dictionaries(st.sampled_from(["nodeSelector", "tolerations", "affinity", "priorityClassName"]), values, max_size=3)
patches = st.builds(lambda spec, listed, meta: {"metadata": meta, "spec": {**spec, "containers": listed}}, specs, containers, st.just({}))


@settings(max_examples=150, deadline=None)
@given(patches)
def test_a_patch_laid_over_twice_changes_no_more_than_once(patch):
    once = patched(POD, [patch])
    assert patched(once, [patch]) == once


@settings(max_examples=100, deadline=None)
@given(patches)
def test_no_patch_loses_a_container_its_name_or_its_security_unless_it_says_so(patch):
    pod = patched(POD, [patch])
    before = {container["name"]: container for container in POD["spec"]["containers"]}
    after = {container["name"]: container for container in pod["spec"]["containers"]}
    assert list(after)[: len(before)] == list(before)
    assert all(after[name]["securityContext"] == container["securityContext"] for name, container in before.items())
    assert pod["spec"]["securityContext"] == POD["spec"]["securityContext"]


@settings(max_examples=50, deadline=None)
@given(patches)
def test_a_patch_is_not_changed_and_neither_is_the_pod(patch):
    texts = json.dumps(patch), json.dumps(POD)
    patched(POD, [patch])
    assert (json.dumps(patch), json.dumps(POD)) == texts


def stage_of(patch):
    return next(c for c in patched(POD, [{"spec": {"containers": [patch]}}])["spec"]["containers"] if c["name"] == "stage-sft")


def test_null_removes():
    assert "securityContext" not in stage_of({"name": "stage", "securityContext": None})


def test_a_volume_may_be_mounted_a_second_time():
    mounts = stage_of({"name": "stage", "volumeMounts": [{"name": "storage", "mountPath": "/data", "readOnly": True}]})["volumeMounts"]
    assert [m["mountPath"] for m in mounts if m["name"] == "storage"] == ["/prism/storage", "/data"]


def test_a_variable_of_ours_can_be_replaced_and_another_added():
    env = stage_of({"name": "stage", "env": [{"name": "HOME", "value": "/home"}, {"name": "NEW", "value": "1"}]})["env"]
    assert [v["value"] for v in env if v["name"] in ("HOME", "NEW")] == ["/home", "1"]


def test_a_container_the_pod_lacks_is_added_only_with_an_image():
    def names(patch):
        return [c["name"] for c in patched(POD, [{"spec": {"containers": [patch]}}])["spec"]["containers"]]

    assert "ray-worker" not in names({"name": "ray-worker", "tty": True}) and "proxy" in names({"name": "proxy", "image": "i"})
