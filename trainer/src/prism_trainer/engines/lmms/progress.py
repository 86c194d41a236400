"""How far an evaluation is, counted in answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

from prism_trainer.errors import Stopped
from prism_trainer.evaluation.record import SampleRecord
from prism_trainer.reporting import Reporter
from prism_trainer.rewards.verifiable import symbolic_metrics

STEP_SECONDS = 1.0
"""Between two lines of metrics, however fast the answers come."""


class Progress:
    """Tells the reporter what the record has, and the stage that it was asked to stop."""

    def __init__(self, reporter: Reporter, record: SampleRecord, total: int) -> None:
        self._reporter, self._record, self._total, self._told_at = reporter, record, total, 0.0
        self.begin()

    @property
    def stop_requested(self) -> bool:
        return self._reporter.stop_requested

    def begin(self) -> None:
        """Starting is over; the time left is estimated from here."""
        self._reporter.begin(len(self._record), self._total, phase="evaluating")

    def during(self, phase: str) -> AbstractContextManager[None]:
        return self._reporter.during(phase)

    def go_on(self) -> None:
        """Between two answers: Stopped where the stage was asked to."""
        if time.monotonic() - self._told_at >= STEP_SECONDS:
            self.tell()
        if self._reporter.stop_requested:
            raise Stopped(None)

    def tell(self, metrics: Mapping[str, float] | None = None) -> None:
        self._told_at = time.monotonic()
        self._reporter.step(len(self._record), {**(metrics or {}), **symbolic_metrics()})
