"""When an attempt, a stage or a run has had its time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from prism_operator.api import Deadlines, StageDeadlines
from prism_operator.children import AttemptRecord, StopRequest
from prism_operator.observed import Attempt
from prism_operator.timestamps import parse_time


def run_deadline(deadlines: Deadlines, since: datetime) -> datetime | None:
    """End of the run's time."""
    return since + timedelta(seconds=deadlines.run_seconds) if deadlines.run_seconds else None


def stage_deadline(deadlines: StageDeadlines, attempts: Sequence[Attempt], forgiven: int) -> datetime | None:
    """End of the stage's time, from the start of its first attempt that is not forgiven."""
    starts = [a.record.started_at for a in attempts if a.number > forgiven and a.record.started_at]
    return min(starts) + timedelta(seconds=deadlines.stage_seconds) if starts and deadlines.stage_seconds else None


def hang_deadline(deadlines: StageDeadlines, attempt: AttemptRecord) -> datetime | None:
    """When silence becomes a hang: from the last sign of work, or from the start where there was none yet."""
    signs = [attempt.started_at, parse_time(attempt.progress.advanced_at) if attempt.progress else None]
    known = [sign for sign in signs if sign]
    return max(known) + timedelta(seconds=deadlines.progress_seconds) if known else None


def exit_deadline(deadlines: StageDeadlines, attempt: AttemptRecord, committed_at: str) -> datetime | None:
    """When an attempt that has committed its final checkpoint should be gone."""
    signs = [parse_time(committed_at), parse_time(attempt.progress.advanced_at) if attempt.progress else None]
    known = [sign for sign in signs if sign]
    return max(known) + timedelta(seconds=deadlines.stop_grace_seconds) if known else None


def kill_deadline(deadlines: StageDeadlines, stop: StopRequest) -> datetime | None:
    """When patience with an attempt that was asked to stop ends."""
    asked = parse_time(stop.requested_at)
    return asked + timedelta(seconds=deadlines.stop_grace_seconds) if asked else None
