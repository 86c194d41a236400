"""One stage's part of the status. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from prism_operator.api import MAX_ATTEMPTS_SHOWN, MAX_MESSAGE_CHARACTERS, AttemptStatus, CheckpointStatus, StageState, StageStatus
from prism_operator.children import AttemptRecord
from prism_operator.decide import Decision, Phase
from prism_operator.observed import Attempt, StageObserved
from prism_operator.plan import StagePlan
from prism_operator.timestamps import format_time, parse_time

MAX_OLD_MESSAGE = 300
MAX_METRICS = 40
MAX_WORD = 63
"""Characters of a phase or of a metric's name: pods write them, and the API server takes 1.5 MB in all."""

_STATES: dict[Phase, StageState] = {
    Phase.PENDING: "Pending",
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
    attempts = tuple(_attempt(a, plan, decision, now, a is observed.last) for a in observed.attempts)
    return StageStatus(
        name=plan.name,
        kind=plan.kind,
        state=_state(plan, observed, decision),
        config_digest=plan.config_digest,
        attempts=attempts[-MAX_ATTEMPTS_SHOWN:],
        forgotten=_forgotten(observed),
        gpu_seconds=round(observed.forgotten.gpu_seconds + sum(attempt.gpu_seconds for attempt in attempts), 1),
        checkpoint=_checkpoint(observed),
        phase=progress.phase[:MAX_WORD] if progress and not observed.is_done else "",
        step=step,
        total_steps=total_steps,
        eta_seconds=progress.eta_seconds if progress and not observed.is_done else None,
        metrics={name[:MAX_WORD]: value for name, value in list(metrics.items())[:MAX_METRICS]},
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
        final = observed.final
        result = next((a.record.result for a in observed.attempts if a.number == final.attempt), None)
        return final.step, final.step, dict(result.metrics if result and result.metrics else final.metrics)
    last = observed.last
    if last is not None and last.record.progress is not None and (last.record.alive or not observed.intermediate):
        progress = last.record.progress
        return progress.step, progress.total_steps, progress.metrics
    if observed.intermediate:
        newest = observed.intermediate[-1]
        known = [a.record.progress.total_steps for a in observed.attempts if a.record.progress]
        return newest.step, max(known, default=0), dict(newest.metrics)
    return 0, 0, {}


def _attempt(attempt: Attempt, plan: StagePlan, decision: Decision, now: datetime, is_last: bool) -> AttemptStatus:
    record, verdict = attempt.record, attempt.verdict
    asked = next((stop.reason for stop in decision.stops if (stop.stage, stop.number) == (record.stage, record.number)), None)
    stop_reason = record.stop.reason if record.stop else asked
    return AttemptStatus(
        number=record.number,
        outcome=verdict.outcome,
        failure_class=verdict.failure_class,
        message=(verdict.message or _held_up(record))[: MAX_MESSAGE_CHARACTERS if is_last else MAX_OLD_MESSAGE],
        started_at=format_time(record.started_at) if record.started_at else None,
        finished_at=format_time(record.ended_at) if record.ended_at and not record.alive else None,
        gpu_seconds=round(_gpu_seconds(record, plan.resources.num_gpus, now), 1),
        resume_from=record.resume_from,
        config_digest=record.config_digest,
        cluster=record.cluster or None,
        stop_reason=stop_reason.value if stop_reason else None,
        restarts={failure_class.value: num for failure_class, num in record.restarts.items()},
    )


def _gpu_seconds(record: AttemptRecord, num_gpus: int, now: datetime) -> float:
    """On a cluster the number moves with the heartbeat, as every change is a write to the API server."""
    if not record.cluster:
        end, since = (now if record.alive else record.ended_at), record.started_at
        return max(0.0, (end - since).total_seconds()) * num_gpus if end and since else 0.0
    end = record.ended_at or (parse_time(record.progress.updated_at) if record.progress else None)
    known = (end - record.holding_since).total_seconds() if end and record.holding_since else 0.0
    return max(known * num_gpus, record.gpu_seconds_before)


def _held_up(record: AttemptRecord) -> str:
    """What a living attempt waits for; kept while it is being stopped for that."""
    if not record.alive:
        return ""
    return f"{record.pending.reason}: {record.pending.message}" if record.pending else record.held_up if record.stop else ""


def _forgotten(observed: StageObserved) -> dict[str, int]:
    """The budgets outlive the list of attempts, which is bounded."""
    counts = Counter({failure_class.value: num for failure_class, num in observed.forgotten.failures.items()})
    for attempt in observed.attempts[:-MAX_ATTEMPTS_SHOWN]:
        counts.update({c.value: num for c, num in attempt.record.restarts.items()})
        if attempt.verdict.failure_class is not None:
            counts[attempt.verdict.failure_class.value] += 1
    return dict(counts)


def _checkpoint(observed: StageObserved) -> CheckpointStatus | None:
    ref, final = observed.output, observed.final
    if ref is None and observed.superseded is not None:  # on a cluster the status is the only memory of it
        final, ref = observed.superseded, observed.superseded.ref
    if ref is None:
        return None
    status = CheckpointStatus(uri=ref.uri, digest=ref.digest, step=ref.step, created_at=None, config_digest=None)
    if final is None or final.uri != ref.uri:
        return status
    made = {"attempt": final.attempt, "config_digest": final.config_digest, "created_at": final.created_at}
    return status.model_copy(update=made)
