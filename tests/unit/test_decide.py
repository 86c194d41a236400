"""What to do next. One row, one rule."""

import pytest

from builders import NOW, OTHER_DIGEST, at, heartbeat, make_pipeline, make_run
from prism_operator.children import StopReason, StopRequest
from prism_operator.decide import Phase


def asked(reason=StopReason.INTERRUPT, seconds=0, killed=False):
    time = at(seconds).isoformat()
    return StopRequest(reason=reason, requested_at=time, killed_at=time if killed else None)


def two():
    return (
        make_run(deadlines={"stopGraceSeconds": 10, "progressSeconds": 60, "runSeconds": 1000, "stageSeconds": 500})
        .stage("sft")
        .stage("rlvr")
        .scene()
    )


def started(decision):
    return (decision.start.job.stage, decision.start.job.attempt) if decision.start else None


@pytest.mark.parametrize(
    ("scene", "start"),
    [
        (two(), ("sft", 1)),
        (two().done("sft"), ("rlvr", 1)),
        (two().attempt("sft", failed="NodeLost"), ("sft", 2)),
        (two().attempt("sft", failed="UserError"), None),
        (two().attempt("sft", failed="UserError").wish(forgiven={"sft": 1}), ("sft", 2)),
        (two().attempt("sft", stopped=StopReason.INTERRUPT), ("sft", 2)),
        (two().attempt("sft").final("sft").attempt("rlvr").final("rlvr"), None),
        (two().live("sft"), None),
        (two().done("sft").live("sft", 2), None),
        (two().wish(interrupted=True), None),
        (two().wish(since=at(-1001)), None),
        (two().attempt("sft", config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST), None),
        (two().attempt("sft", config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST).wish(redo=True), ("sft", 2)),
        (two().attempt("rlvr", config_digest=OTHER_DIGEST).final("rlvr", digest=OTHER_DIGEST), None),
        (two().attempt("sft").final("rlvr"), ("sft", 2)),
    ],
)
def test_what_is_started(scene, start):
    assert started(scene.decide()) == start


@pytest.mark.parametrize(
    ("scene", "phase", "reason"),
    [
        (two(), "Running", "Provisioning"),
        (two().live("sft"), "Running", "Running"),
        (two().done("sft", "rlvr"), "Succeeded", "AllStagesVerified"),
        (two().attempt("sft", failed="UserError"), "Failed", "RetriesExhausted"),
        (two().attempt("sft", 1, failed="NodeLost").attempt("sft", 2, failed="NodeLost", ended_at=NOW), "Retrying", "StageRetrying"),
        (two().wish(interrupted=True), "Stopped", "Interrupted"),
        (two().wish(interrupted=True).live("sft"), "Stopping", "Stopping"),
        (two().wish(interrupted=True).done("sft", "rlvr"), "Succeeded", "AllStagesVerified"),
        (two().wish(since=at(-1001)), "Failed", "DeadlineExceeded"),
        (two().attempt("sft", config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST), "Refused", "StageChanged"),
        (make_run(suspend=True).stage("sft").scene(), "Suspended", "UserRequested"),
        (make_run(suspend=True).stage("sft").scene().live("sft"), "Stopping", "Stopping"),
    ],
)
def test_what_goes_on(scene, phase, reason):
    decision = scene.decide()
    assert (decision.phase, decision.reason.name) == (phase, reason)


@pytest.mark.parametrize(
    ("scene", "now", "stop"),
    [
        (two().live("sft"), 0, None),
        (two().live("sft", progress=heartbeat("sft", at(0))), 59, None),
        (two().live("sft", progress=heartbeat("sft", at(0))), 60, ("Hang", False)),
        (two().live("sft", progress=heartbeat("sft", at(400))), 455, None),
        (two().live("sft", progress=heartbeat("sft", at(490))), 500, ("StageDeadline", False)),
        (two().live("sft", progress=heartbeat("sft", at(990))), 1000, ("RunDeadline", False)),
        (two().live("sft").wish(interrupted=True), 0, ("Interrupt", False)),
        (two().live("sft").wish(interrupted=True, impatient=True), 0, ("Interrupt", True)),
        (two().live("sft", stop=asked()).wish(interrupted=True), 9, None),
        (two().live("sft", stop=asked()).wish(interrupted=True), 10, ("Interrupt", True)),
        (two().live("sft", stop=asked()), 9, None),
        (two().live("sft", stop=asked(killed=True)).wish(interrupted=True, impatient=True), 99, ("Interrupt", True)),
        (two().live("sft", stop=asked(StopReason.HANG)), 10, ("Hang", True)),
        (two().live("sft", config_digest=OTHER_DIGEST), 0, ("NotWanted", False)),
        (two().live("rlvr"), 0, ("NotWanted", False)),
        (two().live("removed-stage"), 0, ("NotWanted", False)),
        (two().live("sft").final("sft"), 9, None),
        (two().live("sft").final("sft"), 10, ("Lingering", False)),
        (two().live("sft").final("sft").wish(interrupted=True), 0, None),
    ],
)
def test_what_is_stopped(scene, now, stop):
    stops = scene.decide(at(now)).stops
    assert [(s.reason, s.kill) for s in stops] == ([stop] if stop else [])


def test_of_two_living_attempts_the_older_is_stopped():
    decision = two().live("sft", 1).live("sft", 2).decide()
    assert [(stop.stage, stop.number) for stop in decision.stops] == [("sft", 1)]


def test_nothing_is_started_after_the_end():
    scene = two().attempt("sft", failed="UserError")
    scene.status()
    scene.attempts.clear()
    assert scene.decide().start is None


def test_whatever_still_lives_after_the_end_is_stopped():
    scene = two().attempt("sft", failed="UserError")
    scene.status()
    assert [stop.number for stop in scene.live("sft", 2).decide().stops] == [2]


def test_the_job_goes_on_from_the_last_checkpoint_and_reads_verified_inputs():
    scene = two().done("sft").attempt("rlvr", 1, failed="NodeLost").intermediate("rlvr", 1, step=2)
    job = scene.decide().start.job
    assert job.attempt == 2 and job.resume_from == scene.checkpoints[-1].ref
    assert job.inputs == {"policy": scene.checkpoints[0].ref} and job.inputs["policy"].digest
    assert job.output_uri == "/runs/demo/checkpoints/rlvr/attempt-2" and job.report_dir == "/runs/demo/stages/rlvr/attempt-2"


def test_the_evaluation_reads_every_policy_by_its_stages_name():
    job = make_pipeline().scene().done("sft", "discriminator", "alignment", "rlvr").decide().start.job
    assert set(job.inputs) == {"sft", "alignment", "rlvr"}


def test_a_retry_waits_for_its_time():
    scene = two().attempt("sft", 1, failed="NodeLost").attempt("sft", 2, failed="NodeLost", ended_at=NOW)
    assert (scene.decide(at(4)).wake_at, started(scene.decide(at(5)))) == (at(5), ("sft", 3))


def test_a_refusal_names_every_changed_stage_and_the_ways_out():
    scene = two().final("sft", digest=OTHER_DIGEST).final("rlvr", digest=OTHER_DIGEST)
    message = scene.decide().reason.message
    assert all(text in message for text in ("'sft', 'rlvr'", "metadata.name", "--redo"))


def test_a_failure_says_which_stage_which_class_where_the_log_is_and_what_to_do():
    message = two().attempt("sft", failed="OutOfMemory", log_file="/l/log.txt").decide().reason.message
    assert all(text in message for text in ("'sft'", "OutOfMemory", "it broke", "/l/log.txt", "microBatchSize"))


def test_leftovers_are_deleted_also_in_the_last_pass():
    scene = two().done("sft", "rlvr").intermediate("rlvr", step=1)
    assert scene.decide().deletes == (scene.checkpoints[-1].uri,)


def test_the_plain_clock_going_back_stops_nothing():
    assert two().live("sft", progress=heartbeat("sft", at(100))).decide(at(-1000)).stops == ()


def test_phases_that_end_a_run():
    assert {two().done("sft", "rlvr").decide().phase, two().attempt("sft", failed="UserError").decide().phase} == {
        Phase.SUCCEEDED,
        Phase.FAILED,
    }


def on_a_cluster(**fields):
    return two().live("sft", **{"cluster": "demo-sft-a1", "remains": True, **fields})


def test_a_clusters_pods_are_killed_by_the_kubelet_and_forced_out_only_long_after():
    asked_at_0 = {"stop": asked(StopReason.SUSPEND), "deleting": at(0), "leaving": at(0)}
    scene = on_a_cluster(**asked_at_0)
    assert [[stop.kill for stop in scene.decide(at(now)).stops] for now in (10, 99, 100)] == [[], [], [True]]
    assert scene.decide(at(1)).wake_at == at(100)


@pytest.mark.parametrize(
    ("fields", "released"),
    [({"remains": True}, 1), ({"remains": True, "deleting": NOW}, 0), ({"remains": False}, 0)],
    ids=["there", "on its way out", "gone"],
)
def test_the_cluster_of_an_ended_attempt_is_released_once(fields, released):
    scene = two().attempt("sft", failed="NodeLost", cluster="demo-sft-a1", **fields)
    assert len(scene.decide().releases) == released


def test_a_new_attempt_waits_until_the_old_ones_cluster_is_gone():
    scene = two().attempt("sft", failed="NodeLost", cluster="demo-sft-a1", remains=True, deleting=NOW)
    assert (started(scene.decide()), scene.decide().phase) == (None, "Stopping")


def test_the_next_stage_does_not_wait_for_the_cluster_of_the_one_before():
    scene = two().attempt("sft", cluster="demo-sft-a1", remains=True).final("sft")
    assert started(scene.decide()) == ("rlvr", 1) and [record.stage for record in scene.decide().releases] == ["sft"]


def test_a_deleted_run_stops_what_lives_and_goes_when_nothing_is_left():
    assert [stop.reason for stop in on_a_cluster().wish(deleted=True).decide().stops] == [StopReason.DELETED]
    assert not on_a_cluster(alive=False).wish(deleted=True).decide().lets_go
    assert two().attempt("sft").wish(deleted=True).decide().lets_go


@pytest.mark.parametrize("passes", [1, 2])
def test_a_finished_run_expires_also_where_it_never_had_a_cluster(passes):
    scene = make_run(ttlSecondsAfterFinished=60).stage("sft").scene().attempt("sft", failed="UserError")
    for _ in range(passes - 1):
        scene.status()
    decision = scene.decide()
    assert (decision.wake_at, decision.expires) == (at(60), False)
    scene.status()
    assert scene.decide(at(60)).expires


def test_a_finished_run_does_not_expire_before_its_pods_are_gone():
    scene = make_run(ttlSecondsAfterFinished=0).stage("sft").scene().attempt("sft", failed="UserError", remains=True, cluster="c")
    scene.status()
    assert not scene.decide(at(9)).expires
