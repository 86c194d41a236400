"""What the user is told."""

import json

import pytest

from builders import NOW, OTHER_DIGEST, at, heartbeat, make_pipeline, make_run
from prism_operator.api import Condition, PrismRunStatus
from prism_operator.children import StopReason, StopRequest
from prism_operator.problems import Problem
from prism_operator.status import rejected_status

TYPES = [
    "Accepted",
    "Admitted",
    "ClusterReady",
    "SFTSucceeded",
    "DiscriminatorSucceeded",
    "AlignmentSucceeded",
    "RLVRSucceeded",
    "EvaluationSucceeded",
    "Stalled",
    "Suspended",
    "Finished",
    "Succeeded",
]


def two(**wishes):
    return make_run().stage("sft").stage("rlvr", "second-rlvr").scene(**wishes)


def conditions(scene, now=NOW):
    return {condition.type: condition.status for condition in scene.status(now).conditions}


def test_every_condition_is_there_from_the_first_write_on():
    assert [condition.type for condition in make_pipeline().scene().status().conditions] == TYPES


def test_a_stage_with_a_name_of_its_own_has_a_condition_of_its_own():
    assert "SecondRlvrSucceeded" in conditions(two())


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (two(), {"Accepted": "True", "ClusterReady": "False", "SFTSucceeded": "Unknown", "Finished": "False", "Succeeded": "Unknown"}),
        (two().live("sft"), {"ClusterReady": "True", "Suspended": "False", "Stalled": "False"}),
        (two().done("sft"), {"SFTSucceeded": "True", "SecondRlvrSucceeded": "Unknown", "Finished": "False"}),
        (two().done("sft", "second-rlvr"), {"Finished": "True", "Succeeded": "True"}),
        (two().attempt("sft", failed="UserError"), {"SFTSucceeded": "False", "Finished": "True", "Succeeded": "False"}),
        (two(interrupted=True).live("sft"), {"Suspended": "False", "Finished": "False"}),
        (two(interrupted=True), {"Suspended": "True", "Finished": "False"}),
        (two().attempt("sft", config_digest=OTHER_DIGEST).final("sft", digest=OTHER_DIGEST), {"Accepted": "False", "Finished": "False"}),
        (
            two().live("sft", stop=StopRequest(reason=StopReason.HANG, requested_at=NOW.isoformat())),
            {"Stalled": "True", "ClusterReady": "True"},
        ),
        (make_run(suspend=True).stage("sft").scene(), {"Suspended": "True", "SFTSucceeded": "Unknown"}),
    ],
)
def test_conditions_tell_what_is_observed(scene, expected):
    found = conditions(scene)
    assert {type_: found[type_] for type_ in expected} == expected


@pytest.mark.parametrize(
    ("scene", "summary", "stage", "attempt", "progress"),
    [
        (two(), "Pending", "sft", 1, 0),
        (two().live("sft", progress=heartbeat("sft", NOW, step=5)), "Running", "sft", 1, 25),
        (two().done("sft"), "Running", "second-rlvr", 1, 50),
        (two(interrupted=True).live("sft"), "Stopping", "sft", 1, 0),
        (two(interrupted=True).done("sft"), "Stopped", "second-rlvr", 0, 50),
        (two().attempt("sft", failed="UserError"), "Failed", "sft", 1, 0),
        (two().done("sft", "second-rlvr"), "Succeeded", "", 0, 100),
    ],
)
def test_the_columns(scene, summary, stage, attempt, progress):
    status = scene.status()
    assert (status.summary, status.stage, status.attempt, status.progress) == (summary, stage, attempt, progress)


def test_a_transition_time_moves_only_when_the_status_does():
    scene = two()
    scene.status(NOW)
    scene.live("sft")
    later = scene.status(at(60))
    assert later.condition("ClusterReady").last_transition_time == "2026-01-01T12:01:00Z"
    assert later.condition("Finished").last_transition_time == "2026-01-01T12:00:00Z"


def test_an_end_stays_and_follows_the_generation():
    scene = two().attempt("sft", failed="UserError")
    ended = scene.status(NOW)
    scene.done("sft", "second-rlvr")
    object.__setattr__(scene.plan, "generation", 7)
    after = scene.status(at(60))
    assert (after.summary, after.finished_at, after.message) == (ended.summary, ended.finished_at, ended.message)
    assert {condition.observed_generation for condition in after.conditions} == {7}


def test_a_run_found_complete_again_ended_when_it_did():
    scene = two().done("sft", "second-rlvr")
    first = scene.status(NOW)
    assert scene.wish(reopen=True).status(at(60)) == first


def test_only_the_last_ten_attempts_are_told():
    scene = two(forgiven={"sft": 99})
    for number in range(1, 15):
        scene.attempt("sft", number, failed="UserError")
    assert [attempt.number for attempt in scene.status().stages[0].attempts] == list(range(5, 15))


def test_a_long_message_is_cut():
    scene = two()
    scene.attempt("sft", failed="UserError")
    record = scene.attempts[0]
    object.__setattr__(record, "result", record.result.model_copy(update={"message": "x" * 10_000}))
    status = scene.status()
    assert max(len(condition.message) for condition in status.conditions) <= 2000 >= len(status.message)


def test_a_dead_attempt_is_told_with_its_class_times_and_gpu_seconds():
    scene = make_run(resources={"gpusPerNode": 2}).stage("sft").scene()
    scene.attempt("sft", 1, failed="OutOfMemory", resume_from="/c")
    attempt = scene.status().stages[0].attempts[0]
    assert (attempt.outcome, attempt.failure_class, attempt.gpu_seconds, attempt.resume_from) == ("Failed", "OutOfMemory", 100.0, "/c")


def test_after_a_stop_the_step_told_is_the_one_it_goes_on_from():
    scene = two(interrupted=True).attempt("sft", progress=heartbeat("sft", NOW, step=9)).intermediate("sft", step=6)
    assert (scene.status().stages[0].step, scene.status().stages[0].total_steps) == (6, 10)


def test_the_way_back_from_the_status_loses_nothing():
    status = make_pipeline().scene().done("sft").live("discriminator").status()
    assert PrismRunStatus.model_validate(status.to_dict()) == status


def test_a_refused_spec_is_told_with_every_problem_and_keeps_what_was_known():
    problems = (Problem(("spec", "seed"), "found 'x'"), Problem(("spec", "model"), "is required, and missing"))
    fresh = rejected_status(problems, 2, None, NOW)
    assert fresh.summary == "Refused" and "spec.seed: found 'x'" in fresh.message and "spec.model" in fresh.message
    assert fresh.condition("Accepted") == Condition(
        type="Accepted",
        status="False",
        reason="SpecRejected",
        message=fresh.message,
        last_transition_time="2026-01-01T12:00:00Z",
        observed_generation=2,
    )
    before = two().done("sft").status()
    assert rejected_status(problems, 2, before, NOW).is_true("SFTSucceeded")


def test_a_status_fits_into_the_api_server_whatever_the_pods_say():
    run, long = make_run(), "é" * 5000
    for number in range(32):
        run.stage("sft", f"stage-{number}")
    scene = run.scene()
    for number in range(32):
        for attempt in range(1, 12):
            metrics = {f"{i}-{long}": 0.123456789 for i in range(500)}
            progress = heartbeat(f"stage-{number}", NOW).model_copy(update={"metrics": metrics, "phase": long})
            scene.attempt(f"stage-{number}", attempt, failed="UserError", log_tail=long, progress=progress)
            record = scene.attempts[-1]
            object.__setattr__(record, "result", record.result.model_copy(update={"message": long}))
    assert len(json.dumps(scene.status().to_dict(), ensure_ascii=False).encode()) < 1_000_000


def test_gpu_seconds_of_an_attempt_on_a_cluster_never_grow_by_being_told_again():
    scene = make_run(resources={"gpusPerNode": 8}).stage("sft").scene()
    scene.attempt("sft", 1, failed="NodeLost", cluster="demo-sft-a1", holding_since=at(-100), ended_at=at(0))
    first = scene.status().gpu_seconds
    scene.attempts.clear()
    scene.attempt("sft", 1, failed="NodeLost", cluster="demo-sft-a1", gpu_seconds_before=first)
    assert first == scene.status().gpu_seconds == 800.0
