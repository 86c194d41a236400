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


SUPERVISED_SECONDS = 120
"""On a cluster the pod's own supervisor finds a hang first, and can try again in place; this is for a supervisor that hangs."""


def hang_deadline(deadlines: StageDeadlines, attempt: AttemptRecord) -> datetime | None:
    """When silence becomes a hang: from the last sign of work, or from the start where there was none yet.

    On a cluster silence may only mean that there is no way to the pod, so there a hang needs a heartbeat that itself tells of none.
    """
    told = parse_time(attempt.progress.advanced_at) if attempt.progress else None
    if attempt.cluster:
        heard = parse_time(attempt.progress.updated_at) if attempt.progress else None
        silent = told and heard and heard - told >= timedelta(seconds=deadlines.progress_seconds)
        return told + timedelta(seconds=deadlines.progress_seconds + SUPERVISED_SECONDS) if told and silent else None
    known = [sign for sign in (attempt.started_at, told) if sign]
    return max(known) + timedelta(seconds=deadlines.progress_seconds) if known else None


def start_deadline(deadlines: StageDeadlines, attempt: AttemptRecord) -> datetime | None:
    """When an attempt whose stage has not begun should have."""
    waits = attempt.pending is not None and not attempt.pending.queued
    since = attempt.waiting_since or attempt.started_at
    return since + timedelta(seconds=deadlines.start_seconds) if waits and since else None


def queue_deadline(deadlines: Deadlines, attempt: AttemptRecord) -> datetime | None:
    """When an attempt that waits for admission should have been admitted, counted from its creation."""
    waits = attempt.pending is not None and attempt.pending.queued and deadlines.queue_seconds
    return attempt.started_at + timedelta(seconds=deadlines.queue_seconds or 0) if waits and attempt.started_at else None


def force_deadline(deadlines: StageDeadlines, attempt: AttemptRecord) -> datetime | None:
    """When pods that should be gone are forced out: the kubelet kills in its own time, and a lost node never does."""
    return attempt.leaving + timedelta(seconds=deadlines.stop_grace_seconds + FORCE_SECONDS) if attempt.leaving else None


FORCE_SECONDS = 90


def expiry(ttl_seconds: int | None, finished_at: str | None) -> datetime | None:
    """When a finished run is deleted."""
    finished = parse_time(finished_at)
    return finished + timedelta(seconds=ttl_seconds) if finished and ttl_seconds is not None else None


def exit_deadline(deadlines: StageDeadlines, attempt: AttemptRecord, committed_at: str) -> datetime | None:
    """When an attempt that has committed its final checkpoint should be gone."""
    signs = [parse_time(committed_at), parse_time(attempt.progress.advanced_at) if attempt.progress else None]
    known = [sign for sign in signs if sign]
    return max(known) + timedelta(seconds=deadlines.stop_grace_seconds) if known else None


def kill_deadline(deadlines: StageDeadlines, stop: StopRequest) -> datetime | None:
    """When patience with an attempt that was asked to stop ends."""
    asked = parse_time(stop.requested_at)
    return asked + timedelta(seconds=deadlines.stop_grace_seconds) if asked else None
