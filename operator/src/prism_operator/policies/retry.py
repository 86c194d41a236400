"""Whether a failed stage is tried again, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from prism_operator.api import Retries
from prism_operator.observed import Attempt, StageObserved
from prism_trainer.contract.report import FailureClass

BACKOFF_SECONDS = (0, 5, 10, 20, 40, 80, 160, 300)
"""Before the first, second, ... retry of one class: a machine that loses one process often loses the next one as well."""


@dataclass(frozen=True)
class TryAgain:
    """Not before `at`; none means now."""

    at: datetime | None = None


@dataclass(frozen=True)
class GiveUp:
    """The budget of the class is spent."""

    attempt: Attempt
    failure_class: FailureClass
    num_failures: int
    budget: int


def retry(stage: StageObserved, retries: Retries, forgiven: int) -> TryAgain | GiveUp:
    """By the last attempt. Attempts up to number `forgiven` count against no budget: whoever runs again wants it tried again."""
    last = stage.last
    if last is None or last.number <= forgiven or last.verdict.failure_class is None:
        return TryAgain()
    failure_class = last.verdict.failure_class
    num_failures = _num_failures(stage, failure_class, forgiven)
    budget = retries.budget(failure_class)
    if num_failures > budget:
        return GiveUp(last, failure_class, num_failures, budget)
    delay = BACKOFF_SECONDS[min(num_failures, len(BACKOFF_SECONDS)) - 1]
    return TryAgain(last.record.ended_at + timedelta(seconds=delay) if last.record.ended_at and delay else None)


def warm_retries(stage: StageObserved, retries: Retries, forgiven: int) -> dict[FailureClass, int]:
    """What is left of the budgets of the failures after which the pods themselves are sound."""
    left = {c: retries.budget(c) - _num_failures(stage, c, forgiven) for c in WARM}
    return {failure_class: num for failure_class, num in left.items() if num > 0}


WARM = (FailureClass.USER_ERROR, FailureClass.HANG)


def _num_failures(stage: StageObserved, failure_class: FailureClass, forgiven: int) -> int:
    """Attempts that ended with it, and trainers that were started again after it."""
    counted = [a for a in stage.attempts if a.number > forgiven]
    ended = sum(a.verdict.failure_class is failure_class for a in counted) + stage.forgotten.failures.get(failure_class, 0)
    return ended + sum(a.record.restarts.get(failure_class, 0) for a in counted)
