"""Retry, deadlines and retention: one rule each, time an argument."""

from dataclasses import replace

import pytest

from builders import NOW, at, heartbeat, make_run
from prism_operator.api import Deadlines, Retention, Retries
from prism_operator.children import AttemptRecord, Forgotten, Pending, StopReason, StopRequest
from prism_operator.policies.deadline import (
    expiry,
    hang_deadline,
    kill_deadline,
    queue_deadline,
    run_deadline,
    stage_deadline,
    start_deadline,
)
from prism_operator.policies.retention import leftovers
from prism_operator.policies.retry import GiveUp, TryAgain, retry, warm_retries
from prism_trainer.contract.report import FailureClass


def stage_of(*failures, **fields):
    scene = make_run().stage("sft").scene()
    for number, failed in enumerate(failures, start=1):
        if failed == "stopped":
            scene.attempt("sft", number, stopped=StopReason.SUSPEND)
        else:
            scene.attempt("sft", number, failed=failed, **fields)
    return scene.observe().stage("sft")


@pytest.mark.parametrize(
    ("failures", "forgiven", "again"),
    [
        ([], 0, True),
        (["UserError"], 0, False),
        (["UserError"], 1, True),
        (["UserError", "UserError"], 1, False),
        (["NodeLost"] * 3, 0, True),
        (["NodeLost"] * 4, 0, False),
        (["NodeLost"] * 4, 1, True),
        (["Hang"], 0, True),
        (["Hang", "Hang"], 0, False),
        (["Hang", "NodeLost", "NodeLost"], 0, True),
        (["NodeLost", "stopped"], 0, True),
        (["stopped"] * 50, 0, True),
        (["Preempted"] * 11, 0, False),
    ],
)
def test_each_class_of_failure_has_its_own_budget(failures, forgiven, again):
    assert isinstance(retry(stage_of(*failures), Retries(), forgiven), TryAgain) is again


def test_the_first_retry_comes_at_once_and_later_ones_after_a_pause():
    assert retry(stage_of("NodeLost", ended_at=NOW), Retries(), 0) == TryAgain(None)
    assert retry(stage_of("NodeLost", "NodeLost", ended_at=NOW), Retries(), 0) == TryAgain(at(5))
    assert retry(stage_of("NodeLost", "NodeLost", "NodeLost", ended_at=NOW), Retries(), 0) == TryAgain(at(10))


def test_giving_up_tells_the_budget():
    verdict = retry(stage_of("Hang", "Hang"), Retries(), 0)
    assert isinstance(verdict, GiveUp) and (verdict.num_failures, verdict.budget) == (2, 1)


def test_a_run_without_deadline_has_none():
    assert run_deadline(Deadlines(), NOW) is None
    assert run_deadline(Deadlines(run_seconds=9), NOW) == at(9)


def test_a_stages_time_runs_from_its_first_attempt_that_is_not_forgiven():
    scene = make_run().stage("sft").scene().attempt("sft", 1, started_at=at(-50)).attempt("sft", 2, started_at=at(-20)).attempt("sft", 3)
    seen = scene.observe().stage("sft").attempts
    assert stage_deadline(Deadlines(stage_seconds=30), seen[:2], forgiven=0) == at(-20)
    assert stage_deadline(Deadlines(stage_seconds=30), seen[:2], forgiven=1) == at(10)


@pytest.mark.parametrize(("progress", "deadline"), [(None, at(30)), (heartbeat("sft", at(7)), at(37)), (heartbeat("sft", at(-99)), at(30))])
def test_silence_counts_from_the_last_sign_of_work_of_this_attempt(progress, deadline):
    record = AttemptRecord("sft", 1, alive=True, started_at=NOW, progress=progress)
    assert hang_deadline(Deadlines(progress_seconds=30), record) == deadline


def test_patience_ends_after_the_grace():
    assert kill_deadline(Deadlines(stop_grace_seconds=5), StopRequest(reason=StopReason.HANG, requested_at=NOW.isoformat())) == at(5)


def kept(scene, **retention):
    stage = scene.observe().stage("sft")
    return [uri.rpartition("checkpoints/sft/")[2] for uri in leftovers(stage, Retention(**retention))]


def sft():
    return make_run().stage("sft").scene()


def test_while_a_stage_is_under_way_its_last_checkpoints_are_kept():
    scene = sft().attempt("sft").intermediate("sft", step=1).intermediate("sft", step=2).intermediate("sft", step=3)
    assert kept(scene) == ["attempt-1/step-000001", "attempt-1/step-000002"]
    assert kept(scene, keep_intermediate=2) == ["attempt-1/step-000001"]


def test_when_a_stage_is_done_its_intermediate_checkpoints_go_and_its_final_one_stays():
    assert kept(sft().attempt("sft").intermediate("sft", step=2).final("sft", step=4)) == ["attempt-1/step-000002"]


def test_the_work_of_another_configuration_is_left_alone():
    assert kept(sft().attempt("sft").final("sft").intermediate("sft", step=2, digest="sha256:" + "3" * 64)) == []


def test_a_living_attempts_folder_and_the_checkpoint_it_goes_on_from_are_left_alone():
    scene = sft().attempt("sft", 1).intermediate("sft", 1, step=1).intermediate("sft", 1, step=2)
    resumed = scene.checkpoints[0].uri
    scene.live("sft", 2, resume_from=resumed).intermediate("sft", 2, step=3).unfinished("sft", 2, "step-000004")
    assert kept(scene) == ["attempt-1/step-000002"]


def test_what_a_dead_attempt_never_finished_goes():
    assert kept(sft().attempt("sft").unfinished("sft", 1, "step-000003")) == ["attempt-1/step-000003"]


def waits(queued=False, **fields):
    return AttemptRecord("sft", 1, alive=True, started_at=NOW, pending=Pending("Why", "because", queued=queued), **fields)


def test_the_time_to_start_counts_from_when_the_pods_could_be_made_and_not_while_queued():
    limits = Deadlines(start_seconds=30, queue_seconds=60)
    assert start_deadline(limits, waits()) == at(30)
    assert start_deadline(limits, waits(waiting_since=at(500))) == at(530)
    assert start_deadline(limits, waits(queued=True)) is None and queue_deadline(limits, waits(queued=True)) == at(60)
    assert queue_deadline(limits, waits()) is None and queue_deadline(Deadlines(), waits(queued=True)) is None
    assert start_deadline(limits, AttemptRecord("sft", 1, alive=True, started_at=NOW)) is None


def test_a_finished_run_is_kept_for_its_time():
    finished = NOW.isoformat()
    assert (expiry(60, finished), expiry(0, finished), expiry(None, finished), expiry(60, None)) == (at(60), NOW, None, None)


def test_failures_within_an_attempt_and_forgotten_ones_count_against_the_budget():
    restarted = stage_of("Hang", restarts={FailureClass.HANG: 1})
    assert isinstance(retry(restarted, Retries(hang=1), 0), GiveUp) and isinstance(retry(restarted, Retries(hang=2), 0), TryAgain)
    assert warm_retries(restarted, Retries(hang=5, user_error=2), 0) == {FailureClass.USER_ERROR: 2, FailureClass.HANG: 3}
    forgetful = replace(stage_of("Hang"), forgotten=Forgotten({FailureClass.HANG: 4}))
    assert isinstance(retry(forgetful, Retries(hang=4), 0), GiveUp)
