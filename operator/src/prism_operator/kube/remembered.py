"""What the status remembers of attempts and checkpoints whose clusters tell no more. Pure.

A status that another version wrote is taken as far as it is understood: a word nobody knows must not stop a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from prism_operator.api import AttemptStatus, PrismRunStatus, StageStatus
from prism_operator.children import AttemptRecord, CommittedCheckpoint, Forgotten, Outcome, StopReason, StopRequest, Verdict
from prism_operator.timestamps import format_exact, parse_time
from prism_trainer.contract.report import FailureClass, Progress


def without_cluster(stage: StageStatus, attempt: AttemptStatus, now: datetime) -> AttemptRecord:
    """An attempt of which only the status tells. One that was last seen alive went with its cluster."""
    record = AttemptRecord(
        stage=stage.name,
        number=attempt.number,
        config_digest=attempt.config_digest,
        resume_from=attempt.resume_from,
        started_at=parse_time(attempt.started_at),
        ended_at=parse_time(attempt.finished_at) or now,
        settled=settled_of(attempt),
        restarts=restarts_of(attempt),
        cluster=attempt.cluster or "",
        gpu_seconds_before=attempt.gpu_seconds,
        stop=remembered_stop(attempt, now),
        held_up=attempt.message if attempt.outcome == Outcome.RUNNING else "",
    )
    if record.settled is not None or record.stop is not None:
        return record
    gone = f"RayCluster {attempt.cluster} is gone, and the operator did not delete it"
    return replace(record, loss=Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, gone))


def settled_of(attempt: AttemptStatus | None) -> Verdict | None:
    if attempt is None or attempt.outcome == Outcome.RUNNING:
        return None
    outcome = attempt.outcome if attempt.outcome in list(Outcome) else Outcome.FAILED
    return Verdict(Outcome(outcome), _class_of(attempt.failure_class) if attempt.failure_class else None, attempt.message)


def _class_of(name: str) -> FailureClass:
    """One that another version wrote counts as what nobody can do anything about."""
    return FailureClass(name) if name in list(FailureClass) else FailureClass.CONTROL_PLANE


def by_class(counts: Mapping[str, int]) -> dict[FailureClass, int]:
    total: Counter[FailureClass] = Counter()
    for name, num in counts.items():
        total[_class_of(name)] += num
    return dict(total)


def forgotten(stage: StageStatus) -> Forgotten:
    told = sum(attempt.gpu_seconds for attempt in stage.attempts)
    return Forgotten(failures=by_class(stage.forgotten), gpu_seconds=max(0.0, stage.gpu_seconds - told))


def remembered_stop(attempt: AttemptStatus, at: datetime) -> StopRequest | None:
    if attempt.stop_reason is None:
        return None
    reason = attempt.stop_reason if attempt.stop_reason in list(StopReason) else StopReason.NOT_WANTED
    return StopRequest(reason=StopReason(reason), requested_at=format_exact(at), killed_at=None)


def restarts_of(attempt: AttemptStatus | None) -> dict[FailureClass, int]:
    return by_class(attempt.restarts) if attempt else {}


def remembered_progress(stage: StageStatus | None, record: AttemptRecord) -> Progress | None:
    """Until the pod is asked again, what was last written down; without times, so that it is no heartbeat."""
    last = stage.attempts[-1].number if stage and stage.attempts else None
    if stage is None or last != record.number or not stage.total_steps:
        return None
    return Progress(
        stage=stage.name,
        attempt=record.number,
        phase=stage.phase,
        step=stage.step,
        total_steps=stage.total_steps,
        eta_seconds=stage.eta_seconds,
        metrics=stage.metrics,
        resume_from=record.resume_from,
        advanced_at="",
        updated_at="",
    )


def committed(previous: PrismRunStatus | None) -> list[CommittedCheckpoint]:
    """The final checkpoints the status remembers."""
    stages = [stage for stage in (previous.stages if previous else ()) if stage.checkpoint and stage.checkpoint.attempt]
    return [
        CommittedCheckpoint(
            stage=stage.name,
            attempt=checkpoint.attempt,
            uri=checkpoint.uri,
            digest=checkpoint.digest or "",
            step=checkpoint.step,
            final=True,
            config_digest=checkpoint.config_digest or "",
            created_at=checkpoint.created_at or "",
            metrics=stage.metrics,
        )
        for stage in stages
        if (checkpoint := stage.checkpoint)
    ]
