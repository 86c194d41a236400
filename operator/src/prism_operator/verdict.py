"""How an attempt ended, from what it left behind. Pure.

The manifest is the truth, before the result: a stage whose final checkpoint is committed has succeeded, whatever its process said.
"""

from __future__ import annotations

import signal

from prism_operator.children import AttemptRecord, Outcome, StopReason, Verdict
from prism_trainer.contract.report import EXIT_CODES, FailureClass

_OUR_FAULT = {
    StopReason.HANG: (FailureClass.HANG, "showed no sign of work within progressSeconds, and was stopped"),
    StopReason.STAGE_DEADLINE: (FailureClass.DEADLINE_EXCEEDED, "was stopped because the stage took longer than stageSeconds"),
    StopReason.QUEUE_DEADLINE: (FailureClass.DEADLINE_EXCEEDED, "was not admitted by its queue within queueSeconds"),
    StopReason.START_DEADLINE: (FailureClass.CONTROL_PLANE, "did not begin within startSeconds, and was stopped"),
    StopReason.WORKER_LOST: (FailureClass.NODE_LOST, "lost a worker, and was stopped"),
    StopReason.HEAD_LOST: (FailureClass.HEAD_LOST, "lost Ray's head, and was stopped"),
}
_CLASS_OF_EXIT_CODE = {code: failure_class for failure_class, code in EXIT_CODES.items()}


def judge(record: AttemptRecord, committed_final: bool) -> Verdict:
    """`committed_final`: whether this attempt committed the final checkpoint of its stage."""
    if record.alive:
        return Verdict(Outcome.RUNNING)
    if record.settled is not None and record.settled.outcome is Outcome.SUCCEEDED:
        return record.settled  # as it was told
    if committed_final:
        return Verdict(Outcome.SUCCEEDED, message=record.result.message if record.result else "committed its final checkpoint")
    if record.settled is not None:
        return record.settled
    if record.stop is not None:
        return _stopped(record.stop.reason, record.held_up)
    if record.result is not None and not (record.loss and record.result.outcome == "Stopped"):
        return _reported(record)
    return record.loss or _vanished(record)


def _stopped(reason: StopReason, held_up: str) -> Verdict:
    if reason is StopReason.CLUSTER_LOST:
        return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, "its RayCluster was deleted by somebody else, and its pods were stopped")
    if reason in _OUR_FAULT:
        failure_class, message = _OUR_FAULT[reason]
        told = reason in (StopReason.START_DEADLINE, StopReason.QUEUE_DEADLINE) and held_up
        return Verdict(Outcome.FAILED, failure_class, f"{message}: {held_up}" if told else message)
    return Verdict(Outcome.STOPPED, message=f"stopped on request ({reason.value})")


def _reported(record: AttemptRecord) -> Verdict:
    result = record.result
    assert result is not None
    if result.outcome == "Failed":
        return Verdict(Outcome.FAILED, result.failure_class or FailureClass.USER_ERROR, result.message)
    if result.outcome == "Stopped":
        return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, result.message or "was stopped from outside, and saved")
    return Verdict(
        Outcome.FAILED,
        FailureClass.CHECKPOINT_CORRUPT,
        "reported success, but its final checkpoint has no sound manifest; the checkpoint folder was changed or deleted",
    )


def _vanished(record: AttemptRecord) -> Verdict:
    if record.config_digest is None:
        return Verdict(Outcome.FAILED, FailureClass.CONTROL_PLANE, "was prepared and never started")
    code = record.exit_code
    tail = f"; last words: {record.log_tail}" if record.log_tail else ""
    if code is None:
        return Verdict(Outcome.FAILED, FailureClass.NODE_LOST, f"its process vanished without a result{tail}")
    if code == -signal.SIGTERM:
        return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, "was ended by SIGTERM from outside before it could save")
    if code < 0:
        return Verdict(Outcome.FAILED, FailureClass.NODE_LOST, f"its process was killed by {_signal_name(-code)}{tail}")
    if code == 2:
        return Verdict(Outcome.FAILED, FailureClass.CONTROL_PLANE, f"could not read its job file{tail}")
    failure_class = _CLASS_OF_EXIT_CODE.get(code, FailureClass.USER_ERROR)
    outcome = Outcome.STOPPED if failure_class is FailureClass.PREEMPTED else Outcome.FAILED
    return Verdict(outcome, failure_class, f"its process ended with exit code {code} and no result{tail}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
