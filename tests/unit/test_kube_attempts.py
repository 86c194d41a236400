"""What a cluster and its pods tell of an attempt: each situation a row."""

import dataclasses

import pytest

from builders import NOW, at, make_run
from prism_operator.api import PrismRunStatus
from prism_operator.children import StopReason, Wishes
from prism_operator.decide import decide
from prism_operator.kube.attempts import children_of
from prism_operator.kube.facts import cluster_facts, pod_facts
from prism_operator.observed import observe
from prism_operator.status import make_status
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.report import EXIT_CODES, FailureClass, Progress, Restart, StageResult
from ray_objects import CLUSTER, disrupted, head, ray_cluster, running, terminated, unschedulable, waiting, worker

PLAN = make_run(storage={"pvc": {"claimName": "claim"}}, resources={"gpusPerNode": 4}).stage("sft").stage("rlvr").plan()
DIGEST = PLAN.stage("sft").config_digest
MADE = CheckpointRef(stage="sft", uri="/prism/storage/demo/checkpoints/sft/attempt-1/step-000004", digest="sha256:" + "d" * 64, step=4)


@dataclasses.dataclass
class Seen:
    """What comes out."""

    record: object
    verdict: object
    decision: object
    status: PrismRunStatus

    @property
    def ready(self):
        return self.status.condition("ClusterReady").reason


def look(cluster, *pods, previous=None, now=NOW, progress=None, deleted=False):
    """Through facts, records, judgement and decision to the status."""
    clusters = [cluster_facts(cluster)] if cluster else []
    wishes = Wishes(since=at(-1000), deleted=deleted)
    children = children_of(previous, clusters, [pod_facts(raw) for raw in pods], {CLUSTER: progress} if progress else {}, wishes, now)
    observed = observe(PLAN, children, previous)
    decision = decide(PLAN, observed, now)
    attempt = next((a for a in observed.stage("sft").attempts if a.number == 1), None)
    status = make_status(PLAN, observed, decision, previous, now)
    return Seen(attempt and attempt.record, attempt and attempt.verdict, decision, status)


def rc(**given):
    return ray_cluster(digest=DIGEST, **given)


def stage(state, **given):
    return head(containers={"ray-head": running(), "stage-sft": state}, **given)


def words(outcome, failure=None, attempt=1, **given):
    result = StageResult(stage="sft", attempt=attempt, outcome=outcome, failure_class=failure, message="it said so", **given)
    return result.to_message()


PULL = 'Back-off pulling image "x:1": ErrImagePull: failed to resolve reference "x:1"'
QUOTA = f'pods "{CLUSTER}-head-sctdh" is forbidden: exceeded quota: q, requested: pods=1, used: pods=16, limited: pods=1'
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
NO_CLAIM = '0/1 nodes are available: persistentvolumeclaim "nope" not found.'


@pytest.mark.parametrize(
    ("cluster", "pods", "reason", "said"),
    [
        (rc(), [], "Provisioning", "no head pod yet"),
        (rc(suspend=True), [], "WaitingForQuota", "suspended until its queue admits it"),
        (rc(held=True), [], "WaitingForQuota", "suspended"),
        (rc(trouble=QUOTA), [], "QuotaExceeded", "exceeded quota: q, requested: pods=1"),
        (rc(trouble="pods is forbidden: violates PodSecurity"), [], "PodsRefused", "violates PodSecurity"),
        (rc(), [head(phase="Pending", node="", containers={}, conditions=(unschedulable(NO_GPU),))], "Unschedulable", "nvidia.com/gpu"),
        (rc(), [head(phase="Pending", node="", containers={}, conditions=(unschedulable(NO_CLAIM),))], "Unschedulable", '"nope" not found'),
        (rc(), [stage(waiting("ContainerCreating"), phase="Pending")], "Provisioning", "look whether the volume claim and the Secrets"),
        (rc(), [stage(waiting("ErrImagePull", "no such host"), phase="Pending")], "ImagePullFailed", "no such host"),
        (rc(), [stage(waiting("ImagePullBackOff", PULL), phase="Pending")], "ImagePullFailed", "x:1"),
        (rc(), [stage(waiting("CreateContainerConfigError", 'secret "nope" not found'))], "ConfigMissing", 'secret "nope" not found'),
        (rc(workers=2), [head(), worker(ready=False)], "Provisioning", "0 of 2 workers are ready"),
        (
            rc(workers=1),
            [head(), worker(phase="Pending", containers={"wait-gcs-ready": running(), "ray-worker": waiting("ErrImagePull", "none")})],
            "ImagePullFailed",
            "ray-worker",
        ),
    ],
)
def test_what_holds_an_attempt_up_is_told_in_the_words_of_whoever_does(cluster, pods, reason, said):
    seen = look(cluster, *pods)
    assert (seen.record.alive, seen.verdict.outcome, seen.decision.phase) == (True, "Running", "Pending")
    assert (seen.record.pending.reason, seen.ready, seen.status.reason) == (reason, reason, reason)
    assert said in seen.record.pending.message
    assert seen.record.pending.queued is (reason == "WaitingForQuota")


def test_while_it_runs_nothing_is_pending():
    seen = look(rc(provisioned=-270), head())
    assert (seen.record.alive, seen.record.pending, seen.record.loss, seen.ready) == (True, None, None, "Ready")
    assert seen.status.stages[0].state == "Running"


def test_a_stage_that_runs_while_its_gang_gathers_is_not_ready_yet():
    assert look(rc(workers=1), head(), worker(ready=False)).ready == "Provisioning"


@pytest.mark.parametrize("failure", [c for c in FailureClass if c is not FailureClass.PREEMPTED])
def test_a_stage_that_says_why_it_failed_is_believed(failure):
    seen = look(rc(provisioned=-270), stage(terminated(EXIT_CODES.get(failure, 1), words("Failed", failure))))
    assert (seen.verdict.outcome, seen.verdict.failure_class, seen.verdict.message) == ("Failed", failure, "it said so")
    assert [record.number for record in seen.decision.releases] == [1]


def test_a_stage_that_succeeded_hands_its_checkpoint_on():
    seen = look(rc(provisioned=-270), stage(terminated(0, words("Succeeded", checkpoint=MADE))))
    assert (seen.verdict.outcome, seen.status.stages[0].checkpoint.digest) == ("Succeeded", MADE.digest)
    assert seen.decision.start.job.inputs["policy"].digest == MADE.digest


@pytest.mark.parametrize(
    ("cluster", "pods", "outcome", "failure"),
    [
        (rc(provisioned=-270), [stage(terminated(0))], "Failed", "UserError"),
        (rc(provisioned=-270), [stage(terminated(1))], "Failed", "UserError"),
        (rc(provisioned=-270), [stage(terminated(2))], "Failed", "ControlPlane"),
        (rc(provisioned=-270), [stage(terminated(65))], "Failed", "CheckpointCorrupt"),
        (rc(provisioned=-270), [stage(terminated(69))], "Failed", "NodeLost"),
        (rc(provisioned=-270), [stage(terminated(70))], "Failed", "Hang"),
        (rc(provisioned=-270), [stage(terminated(71))], "Failed", "OutOfMemory"),
        (rc(provisioned=-270), [stage(terminated(75))], "Stopped", "Preempted"),
        (rc(), [stage(terminated(128, "exec: /nope: no such file", "StartError"))], "Failed", "UserError"),
        (rc(provisioned=-270), [stage(terminated(137))], "Failed", "NodeLost"),
        (rc(provisioned=-270), [stage(terminated(143))], "Stopped", "Preempted"),
        (rc(provisioned=-270), [stage(terminated(137, reason="OOMKilled"))], "Failed", "OutOfMemory"),
        (rc(provisioned=-270), [stage(terminated(137), phase="Failed", reason="Evicted", message="low on memory")], "Failed", "NodeLost"),
        (
            rc(provisioned=-270),
            [stage(terminated(137), phase="Failed", reason="Evicted", conditions=(disrupted("TerminationByKubelet", "low on memory"),))],
            "Stopped",
            "Preempted",
        ),
        (
            rc(provisioned=-270),
            [stage(terminated(0), phase="Succeeded", conditions=(disrupted("EvictionByEvictionAPI", "Eviction API"),))],
            "Stopped",
            "Preempted",
        ),
        (
            rc(provisioned=-270),
            [stage(terminated(69), conditions=(disrupted("PreemptionByScheduler", "preempted"),))],
            "Failed",
            "NodeLost",
        ),
        (rc(provisioned=-270), [head(phase="Failed", containers={}, reason="NodeShutdown")], "Failed", "NodeLost"),
        (rc(provisioned=-270), [], "Failed", "HeadLost"),
        (rc(provisioned=-270, suspend=True), [], "Stopped", "Preempted"),
        (rc(deleting=-5), [], "Stopped", "Preempted"),
        (rc(deleting=-5), [stage(waiting("ImagePullBackOff", PULL), phase="Pending")], "Stopped", "Preempted"),
        (rc(provisioned=-270, deleting=-9), [stage(terminated(137), deleting=-9)], "Stopped", "Preempted"),
        (rc(provisioned=-270, deleting=-9), [stage(terminated(75, words("Stopped")), deleting=-9)], "Stopped", "Preempted"),
        (None, [stage(terminated(75, words("Stopped")), deleting=-9)], "Stopped", "Preempted"),
        (None, [worker(deleting=-9)], "Stopped", "Preempted"),
    ],
)
def test_an_attempt_that_ends_without_a_reason_of_its_own_is_classed_by_what_kubernetes_knows(cluster, pods, outcome, failure):
    seen = look(cluster, *pods)
    assert (seen.record.alive, seen.verdict.outcome, seen.verdict.failure_class) == (False, outcome, failure)
    assert seen.verdict.message


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([head(containers={"ray-head": terminated(3), "stage-sft": running()})], "Ray's head"),
        ([head(containers={"ray-head": terminated(3), "stage-sft": running()}, deleting=-1)], "Ray's head"),
    ],
    ids=["as the kubelet tells", "as KubeRay then deletes the pod"],
)
def test_a_stage_whose_ray_is_dead_is_stopped_and_saves(pods, said):
    seen = look(rc(provisioned=-270), *pods)
    assert seen.record.alive and said in seen.record.loss.message and seen.ready == "WorkersMissing"
    assert [(stop.reason, stop.kill) for stop in seen.decision.stops] == [(StopReason.HEAD_LOST, False)]


@pytest.mark.parametrize(
    "workers",
    [
        [],
        [worker(deleting=-1)],
        [worker(phase="Failed", containers={"ray-worker": terminated(137)})],
        [worker(containers={"ray-worker": terminated(1)})],
        [worker(created=-100)],
    ],
    ids=["gone", "going", "failed", "its Ray ended", "replaced by KubeRay"],
)
def test_a_gang_that_lost_a_worker_is_stopped_and_saves(workers):
    seen = look(rc(provisioned=-270, workers=1), head(), *workers)
    assert seen.record.alive and seen.record.loss.failure_class is FailureClass.NODE_LOST
    assert [stop.reason for stop in seen.decision.stops] == [StopReason.WORKER_LOST]


def test_a_start_that_is_quick_is_told_of_in_one_sentence():
    waits = [(None, at(-295)), (stage(waiting("ContainerCreating"), phase="Pending"), at(-292))]
    told = {look(rc(), *([pod] if pod else []), now=now).status.message for pod, now in waits}
    assert len(told) == 1 and told.pop().endswith("are being started.")
    slow = look(rc(), now=at(-295)).decision
    assert slow.wake_at == at(-290) and look(rc(), now=at(-290)).status.message.endswith("has no head pod yet.")


def test_a_worker_lost_before_the_gang_was_whole_is_kuberays_to_replace():
    assert look(rc(workers=1), head(), worker(created=-5, ready=False)).record.loss is None


def test_a_head_deleted_before_the_gang_was_whole_is_kuberays_to_replace():
    seen = look(rc(), head(created=-5, containers={"ray-head": waiting("PodInitializing"), "stage-sft": waiting("PodInitializing")}))
    assert (seen.record.alive, seen.record.loss, seen.ready) == (True, None, "Provisioning")


def test_of_two_head_pods_the_newer_counts():
    old = stage(terminated(137), name="old", created=-290, deleting=-20)
    assert look(rc(), old, head(name="new", created=-15)).verdict.outcome == "Running"


def test_a_stage_that_saves_in_a_cluster_somebody_deleted_lives_until_it_ends():
    told = look(rc(provisioned=-270), head()).status
    seen = look(None, head(deleting=-5), previous=told)
    assert seen.record.alive and seen.decision.start is None and seen.decision.stops == ()


def test_no_attempt_starts_while_pods_of_a_deleted_cluster_are_there():
    gone = look(None, head(deleting=-5)).status
    ended = look(None, stage(terminated(75, words("Stopped")), deleting=-5), previous=gone)
    assert (ended.decision.start, ended.decision.phase) == (None, "Stopping")
    assert look(None, previous=ended.status).decision.start.job.attempt == 2


def test_pods_whose_cluster_was_deleted_without_them_are_told_to_go_once_they_have_ended():
    seen = look(None, stage(terminated(1, words("Failed", FailureClass.NODE_LOST))))
    assert [record.cluster for record in seen.decision.releases] == [CLUSTER]


def test_pods_that_somebody_orphaned_are_stopped_and_the_attempt_counts_as_preempted():
    told = look(rc(provisioned=-270), head()).status
    seen = look(None, head(), previous=told)
    assert seen.record.alive and [stop.reason for stop in seen.decision.stops] == [StopReason.CLUSTER_LOST]
    again = look(None, head(), previous=seen.status)
    assert [stop.kill for stop in again.decision.stops] == [False], "told again, where the operator died before it told them"
    saving = look(None, head(deleting=-5), previous=again.status)
    assert saving.record.alive and saving.decision.stops == ()
    ended = look(None, stage(terminated(75, words("Stopped")), deleting=-5), previous=saving.status)
    assert (ended.verdict.outcome, ended.verdict.failure_class) == ("Stopped", FailureClass.PREEMPTED)


@pytest.mark.parametrize(("ray", "failure_class"), [(-12, FailureClass.HEAD_LOST), (-9, FailureClass.PREEMPTED)])
def test_rays_head_that_ended_before_the_stage_is_why_it_was_told_to_stop(ray, failure_class):
    containers = {"ray-head": terminated(1, finished=ray), "stage-sft": terminated(75, words("Stopped"), finished=-10)}
    assert look(rc(provisioned=-270), head(containers=containers, deleting=-11)).verdict.failure_class is failure_class


def test_pods_of_an_earlier_run_of_the_name_are_no_attempt():
    assert look(None, head(created=-2000)).record is None


def test_what_is_stopped_for_a_reason_of_ours_ends_for_it():
    asked = look(rc(provisioned=-270), head(containers={"ray-head": terminated(1), "stage-sft": running()})).status
    assert asked.stages[0].attempts[0].stop_reason == "HeadLost"
    ended = look(rc(provisioned=-270, deleting=-5), stage(terminated(75, words("Stopped")), deleting=-5), previous=asked)
    assert (ended.verdict.outcome, ended.verdict.failure_class) == ("Failed", "HeadLost")


def test_a_reason_that_was_written_down_and_not_carried_out_is_taken_back():
    asked = look(rc(provisioned=-270), head(containers={"ray-head": terminated(1), "stage-sft": running()})).status
    again = look(rc(provisioned=-270), head(), previous=asked)
    assert again.record.stop is None and again.status.stages[0].attempts[0].stop_reason is None


def test_pods_are_forced_out_only_long_after_the_kubelet_should_have_ended_them():
    def forced(now):
        return [stop.kill for stop in look(rc(provisioned=-270, deleting=0), head(deleting=0), now=at(now)).decision.stops]

    assert (forced(150), forced(209), forced(210)) == ([], [], [True])


def test_a_head_on_a_dead_node_is_forced_out_and_counts_as_lost():
    gone = disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
    seen = look(rc(provisioned=-270), head(deleting=-400, conditions=(gone,)))
    assert [(stop.reason, stop.kill) for stop in seen.decision.stops] == [(StopReason.HEAD_LOST, True)]


@pytest.mark.parametrize("deleting", [-5, None], ids=["by hand", "released by us"])
def test_a_told_outcome_stays_whatever_becomes_of_the_pods(deleting):
    told = look(rc(provisioned=-270), stage(terminated(1, words("Failed", FailureClass.NODE_LOST)))).status
    for later in (look(rc(provisioned=-270, deleting=deleting), previous=told), look(None, previous=told)):
        assert later.verdict.failure_class == "NodeLost" and later.status.stages[0].attempts == told.stages[0].attempts


def test_a_run_told_as_running_of_which_nothing_is_there_lost_its_cluster():
    told = look(rc(provisioned=-270), head()).status
    later = look(None, previous=told)
    assert (later.verdict.failure_class, later.decision.start.job.attempt) == ("HeadLost", 2)


def test_a_status_lost_altogether_is_made_again_from_what_is_there():
    seen = look(rc(provisioned=-270), stage(terminated(0, words("Succeeded", checkpoint=MADE))), previous=None)
    assert seen.status.stages[0].checkpoint.uri == MADE.uri


@pytest.mark.parametrize(
    "message",
    ["Traceback: boom", "{", "[]", "3", "[" * 4096, '{"stage": "sft"}', words("Succeeded", attempt=2, checkpoint=MADE), "\x00\ufffd"],
    ids=["a traceback", "half", "a list", "a number", "brackets", "too little", "another attempt's", "bytes"],
)
def test_garbage_for_last_words_is_no_result_and_stops_nobody(message):
    seen = look(rc(provisioned=-270), stage(terminated(69, message)))
    assert (seen.record.result, seen.verdict.failure_class) == (None, "NodeLost")


def test_success_without_a_digest_is_no_success():
    bare = MADE.model_copy(update={"digest": None})
    assert (
        look(rc(provisioned=-270), stage(terminated(0, words("Succeeded", checkpoint=bare)))).verdict.failure_class == "CheckpointCorrupt"
    )


def test_failures_within_the_pods_count_against_the_budgets():
    restart = Restart(failure_class=FailureClass.HANG, at="2026-01-01T12:00:00Z")
    seen = look(rc(provisioned=-270), stage(terminated(70, words("Failed", FailureClass.HANG, restarts=(restart, restart)))))
    assert seen.record.restarts == {FailureClass.HANG: 2}
    assert look(None, previous=seen.status).record.restarts == {FailureClass.HANG: 2}


def test_gpu_seconds_do_not_grow_from_pass_to_pass():
    seen = look(rc(provisioned=-270), stage(terminated(1, words("Failed", FailureClass.NODE_LOST))))
    first = seen.status.gpu_seconds
    assert first == 4 * 279  # GPUs times seconds, from the pod's start to the stage's end
    for _ in range(3):
        seen = look(None, previous=seen.status)
    assert seen.status.gpu_seconds == first


@pytest.mark.parametrize(("released", "stops"), [(-3000, []), (-3700, ["StartDeadline"])])
def test_the_wait_for_a_queue_is_no_slow_start(released, stops):
    cluster = rc(released=released)
    cluster["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert [stop.reason for stop in look(cluster).decision.stops] == stops


def heartbeat(advanced, heard):
    return Progress(stage="sft", attempt=1, step=1, total_steps=9, advanced_at=at(advanced).isoformat(), updated_at=at(heard).isoformat())


@pytest.mark.parametrize(
    ("progress", "stops"),
    [
        (None, []),
        (heartbeat(-2000, -1990), []),
        (heartbeat(-1900, -5), []),
        (heartbeat(-1930, -5), ["Hang"]),
        (heartbeat(-5, -5), []),
    ],
    ids=["never heard", "not heard any more", "the supervisor's turn", "heard, and silent for too long", "at work"],
)
def test_a_hang_is_heard_of_and_never_guessed(progress, stops):
    cluster = rc(provisioned=-270)
    assert [stop.reason for stop in look(cluster, head(), progress=progress).decision.stops] == stops


def test_the_gpu_seconds_of_a_stage_outlive_its_list_of_attempts():
    told = look(rc(provisioned=-270), stage(terminated(1, words("Failed", FailureClass.NODE_LOST)))).status
    raw = told.to_dict()
    (attempt,) = raw["stages"][0]["attempts"]
    raw["stages"][0] |= {"attempts": [attempt | {"number": n, "gpuSeconds": 10.0} for n in range(3, 13)], "gpuSeconds": 120.0}
    later = look(rc(attempt=13), previous=PrismRunStatus.model_validate(raw), now=at(100)).status
    assert [seen.number for seen in later.stages[0].attempts] == [*range(4, 14)]
    assert later.stages[0].gpu_seconds == later.gpu_seconds == 120.0


def test_a_word_another_version_wrote_stops_no_run():
    told = look(rc(provisioned=-270), stage(terminated(1, words("Failed", FailureClass.NODE_LOST)))).status
    raw = told.to_dict()
    raw["stages"][0]["attempts"][0] |= {"failureClass": "Gremlins", "outcome": "Puzzled", "stopReason": "Whim", "restarts": {"Gremlins": 2}}
    raw["stages"][0]["forgotten"] = {"Gremlins": 1}
    later = look(None, previous=PrismRunStatus.model_validate(raw), now=at(100))
    assert later.verdict.failure_class is FailureClass.CONTROL_PLANE and later.decision.start.job.attempt == 2


def test_a_run_being_deleted_waits_for_the_last_pod():
    told = look(rc(provisioned=-270), head()).status
    assert [stop.reason for stop in look(rc(provisioned=-270), head(), previous=told, deleted=True).decision.stops] == ["Deleted"]
    assert not look(None, head(deleting=-5), previous=told, deleted=True).decision.lets_go
    gone = look(None, previous=told, deleted=True)
    assert gone.decision.lets_go and not gone.status.is_true("Suspended")
