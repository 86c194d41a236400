"""How a trainer process ended, from what it left. Pure. The manifest is the truth before the result: see `supervisor`."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from prism_trainer.contract.preflight import Finding
from prism_trainer.contract.report import EXIT_CODES, FailureClass, StageResult
from prism_trainer.failures import class_of_words

_CLASS_OF_EXIT_CODE = {code: failure_class for failure_class, code in EXIT_CODES.items()}


@dataclass(frozen=True)
class End:
    """A dead trainer."""

    exit_code: int
    """Negative: killed by that signal."""
    result: StageResult | None = None
    hung_for: float | None = None
    """Seconds without a sign of work, after which it was killed."""
    stop_asked: bool = False
    """We passed a stop on to it."""
    killed_after: float | None = None
    """Seconds of grace after which it was killed."""
    oom_kills: int = 0
    """Of the kernel in this container meanwhile."""
    lost_worker: Finding | None = None
    """The first of its Ray workers that died of itself meanwhile."""
    waited_for_lost: bool = False
    """It did not end by itself after that, and was killed."""
    last_line: str = ""
    last_words: str = ""
    """More of its output than that line."""


@dataclass(frozen=True)
class Verdict:
    """None for a class: it says it succeeded."""

    failure_class: FailureClass | None
    message: str


def judge(end: End) -> Verdict:
    """A stop that was asked for is never a failure of the trainer's, whatever it did with it."""
    if end.stop_asked:
        return _stopped(end)
    if end.waited_for_lost and end.lost_worker is not None:
        return Verdict(end.lost_worker.failure_class, f"{end.lost_worker.sentence}; the trainer still waited for it and was killed")
    if end.hung_for is not None:
        return Verdict(FailureClass.HANG, f"the trainer showed no sign of work for {end.hung_for:.0f} s and was killed{_tail(end)}")
    if end.result is None:
        return _vanished(end)
    if end.result.outcome == "Failed" and end.lost_worker is not None and end.result.failure_class is FailureClass.USER_ERROR:
        return Verdict(end.lost_worker.failure_class, f"{end.lost_worker.sentence}; the trainer says: {end.result.message}")
    if end.result.outcome == "Failed":
        return Verdict(end.result.failure_class or FailureClass.USER_ERROR, end.result.message)
    if end.result.outcome == "Stopped":
        return Verdict(FailureClass.PREEMPTED, "the trainer was stopped from outside of this container's supervisor, and saved")
    return Verdict(None, end.result.message)


def _stopped(end: End) -> Verdict:
    if end.killed_after is not None:
        return Verdict(
            FailureClass.PREEMPTED,
            f"asked to stop, the trainer had not saved within stopGraceSeconds ({end.killed_after:g} s) and was killed; "
            "the next attempt goes on from the last committed checkpoint",
        )
    if end.result is not None and end.result.outcome == "Succeeded":
        return Verdict(None, end.result.message)
    if end.result is not None and end.result.outcome == "Failed":
        return Verdict(FailureClass.PREEMPTED, f"asked to stop; meanwhile the trainer failed: {end.result.message}")
    return Verdict(FailureClass.PREEMPTED, "stopped on request" if end.result else "stopped on request, before anything could be saved")


def _vanished(end: End) -> Verdict:
    code = end.exit_code
    if code == -signal.SIGKILL and end.oom_kills:
        return Verdict(
            FailureClass.OUT_OF_MEMORY,
            f"the kernel killed the trainer because the container's memory ran out; raise resources.memory or lower the batch{_tail(end)}",
        )
    if code == -signal.SIGTERM:
        return Verdict(FailureClass.PREEMPTED, "the trainer was ended by SIGTERM from outside before it could save")
    if code < 0:
        return Verdict(FailureClass.NODE_LOST, f"the trainer was killed by {_signal_name(-code)}{_tail(end)}")
    if code == 2:
        return Verdict(FailureClass.CONTROL_PLANE, f"the trainer could not read its job file{_tail(end)}")
    if end.lost_worker is not None:
        return Verdict(end.lost_worker.failure_class, f"{end.lost_worker.sentence}; the trainer ended with exit code {code}{_tail(end)}")
    failure_class = class_of_words(end.last_words) or _CLASS_OF_EXIT_CODE.get(code, FailureClass.USER_ERROR)
    return Verdict(failure_class, f"the trainer ended with exit code {code} and no result{_tail(end)}")


def _tail(end: End) -> str:
    return f"; last words: {end.last_line}" if end.last_line else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
