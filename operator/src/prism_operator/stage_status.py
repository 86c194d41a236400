"""One stage's part of the status. Pure."""

from __future__ import annotations

from datetime import datetime

from prism_operator.api import MAX_ATTEMPTS_SHOWN, MAX_MESSAGE_CHARACTERS, AttemptStatus, CheckpointStatus, StageState, StageStatus
from prism_operator.decide import Decision, Phase
from prism_operator.observed import Attempt, StageObserved
from prism_operator.plan import StagePlan
from prism_operator.timestamps import format_time
from prism_trainer.contract.checkpoint import CheckpointRef

_STATES: dict[Phase, StageState] = {
    Phase.RUNNING: "Running",
    Phase.RETRYING: "Retrying",
    Phase.STOPPING: "Stopping",
    Phase.SUSPENDED: "Stopped",
    Phase.STOPPED: "Stopped",
    Phase.REFUSED: "Pending",
    Phase.FAILED: "Failed",
}


def make_stage_status(plan: StagePlan, observed: StageObserved, decision: Decision, now: datetime) -> StageStatus:
    """Steps and metrics come from the final manifest, else from the last heartbeat, else from the last resumable checkpoint."""
    step, total_steps, metrics = _progress(observed)
    live = observed.live
    progress = live.record.progress if live else None
    return StageStatus(
        name=plan.name,
        kind=plan.kind,
        state=_state(plan, observed, decision),
        config_digest=plan.config_digest,
        attempts=tuple(_attempt(attempt, plan, now) for attempt in observed.attempts[-MAX_ATTEMPTS_SHOWN:]),
        checkpoint=_checkpoint(observed.output),
        phase=progress.phase if progress and not observed.is_done else "",
        step=step,
        total_steps=total_steps,
        eta_seconds=progress.eta_seconds if progress and not observed.is_done else None,
        metrics=metrics,
    )


def _state(plan: StagePlan, observed: StageObserved, decision: Decision) -> StageState:
    if plan.pinned is not None:
        return "Skipped"
    if observed.is_done:
        return "Succeeded"
    if decision.stage != plan.name:
        return "Pending"
    if decision.phase is Phase.STOPPED and not observed.attempts:
        return "Pending"
    return _STATES[decision.phase]


def _progress(observed: StageObserved) -> tuple[int, int, dict[str, float]]:
    if observed.final is not None:
        manifest = observed.final.manifest
        result = next((a.record.result for a in observed.attempts if a.number == observed.final.attempt), None)
        return manifest.step, manifest.step, (result.metrics if result and result.metrics else manifest.provenance.metrics)
    last = observed.last
    if last is not None and last.record.progress is not None and (last.record.alive or not observed.intermediate):
        progress = last.record.progress
        return progress.step, progress.total_steps, progress.metrics
    if observed.intermediate:
        manifest = observed.intermediate[-1].manifest
        known = [a.record.progress.total_steps for a in observed.attempts if a.record.progress]
        return manifest.step, max(known, default=0), manifest.provenance.metrics
    return 0, 0, {}


def _attempt(attempt: Attempt, plan: StagePlan, now: datetime) -> AttemptStatus:
    record, verdict = attempt.record, attempt.verdict
    end = now if record.alive else record.ended_at
    seconds = max(0.0, (end - record.started_at).total_seconds()) if end and record.started_at else 0.0
    return AttemptStatus(
        number=record.number,
        outcome=verdict.outcome,
        failure_class=verdict.failure_class,
        message=verdict.message[:MAX_MESSAGE_CHARACTERS],
        started_at=format_time(record.started_at) if record.started_at else None,
        finished_at=format_time(record.ended_at) if record.ended_at and not record.alive else None,
        gpu_seconds=round(seconds * plan.resources.num_gpus, 1),
        resume_from=record.resume_from,
    )


def _checkpoint(ref: CheckpointRef | None) -> CheckpointStatus | None:
    return CheckpointStatus(uri=ref.uri, digest=ref.digest, step=ref.step) if ref else None
