"""Whether a failed stage is tried again, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prism_operator.api import Retries
from prism_operator.observed import Attempt
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


def retry(attempts: Sequence[Attempt], retries: Retries, forgiven: int) -> TryAgain | GiveUp:
    """By the last attempt. Attempts up to number `forgiven` count against no budget: whoever runs again wants it tried again."""
    last = attempts[-1] if attempts else None
    if last is None or last.number <= forgiven or last.verdict.failure_class is None:
        return TryAgain()
    failure_class = last.verdict.failure_class
    same = [a for a in attempts if a.number > forgiven and a.verdict.failure_class is failure_class]
    budget = retries.budget(failure_class)
    if len(same) > budget:
        return GiveUp(last, failure_class, len(same), budget)
    delay = BACKOFF_SECONDS[min(len(same), len(BACKOFF_SECONDS)) - 1]
    return TryAgain(last.record.ended_at + timedelta(seconds=delay) if last.record.ended_at and delay else None)
