"""How an attempt ended, from what it left behind."""

import pytest

from builders import NOW, OTHER_DIGEST
from prism_operator.children import AttemptRecord, Outcome, StopReason, StopRequest, Verdict
from prism_operator.verdict import judge
from prism_trainer.contract.report import FailureClass, StageResult


def record(**fields):
    return AttemptRecord("sft", 1, **{"config_digest": OTHER_DIGEST, "started_at": NOW, **fields})


LOST = Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, "the head is gone")


def result(outcome, failure_class=None):
    return StageResult(stage="sft", attempt=1, outcome=outcome, failure_class=failure_class, message="said so")


def stop(reason):
    return StopRequest(reason=reason, requested_at=NOW.isoformat())


@pytest.mark.parametrize(
    ("left_behind", "outcome", "failure_class"),
    [
        (record(alive=True), "Running", None),
        (record(alive=True, stop=stop(StopReason.HANG)), "Running", None),
        (record(result=result("Failed", FailureClass.OUT_OF_MEMORY)), "Failed", "OutOfMemory"),
        (record(result=result("Failed")), "Failed", "UserError"),
        (record(result=result("Stopped")), "Stopped", "Preempted"),
        (record(result=result("Succeeded")), "Failed", "CheckpointCorrupt"),
        (record(result=result("Stopped"), stop=stop(StopReason.SUSPEND)), "Stopped", None),
        (record(result=result("Stopped"), stop=stop(StopReason.INTERRUPT)), "Stopped", None),
        (record(result=result("Failed", FailureClass.USER_ERROR), stop=stop(StopReason.INTERRUPT)), "Stopped", None),
        (record(exit_code=-9, stop=stop(StopReason.INTERRUPT)), "Stopped", None),
        (record(result=result("Stopped"), stop=stop(StopReason.HANG)), "Failed", "Hang"),
        (record(exit_code=-9, stop=stop(StopReason.HANG)), "Failed", "Hang"),
        (record(result=result("Stopped"), stop=stop(StopReason.STAGE_DEADLINE)), "Failed", "DeadlineExceeded"),
        (record(result=result("Stopped"), stop=stop(StopReason.RUN_DEADLINE)), "Stopped", None),
        (record(exit_code=None), "Failed", "NodeLost"),
        (record(exit_code=-9), "Failed", "NodeLost"),
        (record(exit_code=-11), "Failed", "NodeLost"),
        (record(exit_code=-15), "Stopped", "Preempted"),
        (record(exit_code=1), "Failed", "UserError"),
        (record(exit_code=2), "Failed", "ControlPlane"),
        (record(exit_code=65), "Failed", "CheckpointCorrupt"),
        (record(exit_code=71), "Failed", "OutOfMemory"),
        (record(exit_code=75), "Stopped", "Preempted"),
        (record(exit_code=0), "Failed", "UserError"),
        (record(config_digest=None, started_at=None), "Failed", "ControlPlane"),
        (record(result=result("Stopped"), stop=stop(StopReason.HEAD_LOST)), "Failed", "HeadLost"),
        (record(result=result("Stopped"), stop=stop(StopReason.WORKER_LOST)), "Failed", "NodeLost"),
        (record(stop=stop(StopReason.START_DEADLINE)), "Failed", "ControlPlane"),
        (record(stop=stop(StopReason.QUEUE_DEADLINE)), "Failed", "DeadlineExceeded"),
        (record(loss=LOST), "Failed", "HeadLost"),
        (record(loss=LOST, result=result("Stopped")), "Failed", "HeadLost"),
        (record(stop=stop(StopReason.CLUSTER_LOST)), "Stopped", "Preempted"),
        (record(loss=LOST, result=result("Failed", FailureClass.USER_ERROR)), "Failed", "UserError"),
        (record(loss=LOST, stop=stop(StopReason.SUSPEND)), "Stopped", None),
        (record(settled=LOST, result=result("Stopped"), stop=stop(StopReason.SUSPEND)), "Failed", "HeadLost"),
    ],
)
def test_what_an_attempt_left_behind_decides(left_behind, outcome, failure_class):
    verdict = judge(left_behind, committed_final=False)
    assert (verdict.outcome, verdict.failure_class) == (outcome, failure_class)


@pytest.mark.parametrize("left_behind", [record(exit_code=-9), record(result=result("Failed")), record(stop=stop(StopReason.HANG))])
def test_a_committed_final_checkpoint_is_success_whatever_the_process_did(left_behind):
    assert judge(left_behind, committed_final=True).outcome is Outcome.SUCCEEDED


def test_the_last_words_of_a_process_are_told():
    assert "ImportError: no torch" in judge(record(exit_code=1, log_tail="ImportError: no torch"), committed_final=False).message


def test_a_success_that_was_told_is_told_in_the_same_words_for_ever():
    told = Verdict(Outcome.SUCCEEDED, None, "trained in 3 hours")
    assert judge(record(settled=told), committed_final=True) == told
