"""What to do next, from the plan and what is observed. Pure: no clock, no I/O; everything can be decided again at any moment.

The rules, in order. What lives and is not wanted is stopped. What lives and is wanted is left alone, until somebody wants it paused or
a deadline passes. Only when nothing lives may something be started, and only the first stage that is not done: so there is at most one
living attempt a run, and every input is committed before its reader starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from prism_operator import reasons
from prism_operator.children import AttemptRecord, StopReason
from prism_operator.names import BASE_MODEL, output_uri, report_dir
from prism_operator.observed import Observed, StageObserved
from prism_operator.plan import RunPlan, StagePlan
from prism_operator.policies.deadline import exit_deadline, hang_deadline, kill_deadline, run_deadline, stage_deadline
from prism_operator.policies.retention import leftovers
from prism_operator.policies.retry import GiveUp, retry
from prism_operator.policies.suspend import pause
from prism_operator.reasons import Reason
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob


class Phase(StrEnum):
    """What goes on."""

    RUNNING = "Running"
    RETRYING = "Retrying"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    STOPPED = "Stopped"
    REFUSED = "Refused"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


TERMINAL = (Phase.SUCCEEDED, Phase.FAILED)


@dataclass(frozen=True)
class StartAttempt:
    """Start one attempt."""

    job: StageJob
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StopAttempt:
    """Ask one attempt to save and stop; `kill` when it was asked long ago."""

    stage: str
    number: int
    reason: StopReason
    kill: bool = False


@dataclass(frozen=True)
class Decision:
    """One pass. Stops and deletions are carried out before the start."""

    phase: Phase
    reason: Reason
    stage: str | None = None
    start: StartAttempt | None = None
    stops: tuple[StopAttempt, ...] = ()
    deletes: tuple[str, ...] = ()
    wake_at: datetime | None = None


def decide(plan: RunPlan, observed: Observed, now: datetime) -> Decision:
    """The whole of the operator's judgement."""
    if observed.live:
        return _tend(plan, observed, now)
    if observed.is_finished:
        return Decision(Phase.SUCCEEDED if observed.current is None else Phase.FAILED, reasons.IN_PROGRESS)
    decision = _next(plan, observed, now)
    deletes = tuple(uri for stage in observed.stages for uri in leftovers(stage, plan.retention))
    return replace(decision, deletes=deletes)


def _tend(plan: RunPlan, observed: Observed, now: datetime) -> Decision:
    """Something lives: stop it, or let it run."""
    wanted = _wanted(plan, observed)
    stops = [_stop(plan, observed, record, StopReason.NOT_WANTED, now) for record in observed.live if record is not wanted]
    if wanted is None:
        return _stopping(plan, observed.live[0], StopReason.NOT_WANTED, stops)
    reason, wake_at = _why_stop(plan, observed, wanted, now)
    if reason is not None:
        return _stopping(plan, wanted, reason, [*stops, _stop(plan, observed, wanted, reason, now)])
    facts = reasons.STAGE_RUNNING.with_facts(attempt=wanted.number)
    deletes = leftovers(observed.stage(wanted.stage), plan.retention)
    return Decision(Phase.RUNNING, facts, wanted.stage, stops=_without_none(stops), deletes=deletes, wake_at=wake_at)


def _wanted(plan: RunPlan, observed: Observed) -> AttemptRecord | None:
    """The newest living attempt of the current stage with the planned digest, or of a stage just done, on its way out."""
    if observed.is_finished:
        return None
    current = observed.current
    for stage in [s for s in observed.stages if s is current or (s.final and s.live)]:
        live = stage.live
        if live and live.record.config_digest == plan.stage(stage.name).config_digest:
            return live.record
    return None


def _why_stop(plan: RunPlan, observed: Observed, record: AttemptRecord, now: datetime) -> tuple[StopReason | None, datetime | None]:
    """The reason to stop a wanted attempt, else when to look again."""
    if record.stop is not None:
        return record.stop.reason, None
    if observed.wishes.impatient:
        return StopReason.INTERRUPT, None
    stage = observed.stage(record.stage)
    limits = plan.stage(record.stage).deadlines
    if stage.final is not None:
        due = [(StopReason.LINGERING, exit_deadline(limits, record, stage.final.manifest.provenance.created_at))]
    else:
        paused = pause(plan.suspend, observed.wishes)
        if paused is not None:
            return paused, None
        due = [
            (StopReason.RUN_DEADLINE, run_deadline(plan.deadlines, observed.wishes.since)),
            (StopReason.STAGE_DEADLINE, stage_deadline(limits, stage.attempts, observed.wishes.forgiven.get(stage.name, 0))),
            (StopReason.HANG, hang_deadline(limits, record)),
        ]
    passed = next((reason for reason, at in due if at is not None and at <= now), None)
    return passed, min((at for _, at in due if at is not None), default=None)


def _stop(plan: RunPlan, observed: Observed, record: AttemptRecord, reason: StopReason, now: datetime) -> StopAttempt | None:
    """The next step of stopping: ask, wait, kill; killed again on every pass until it is gone."""
    if record.stop is None:
        return StopAttempt(record.stage, record.number, reason, kill=observed.wishes.impatient)
    due = _patience_ends(plan, record)
    late = due is None or due <= now
    return StopAttempt(record.stage, record.number, record.stop.reason, kill=True) if late or observed.wishes.impatient else None


def _patience_ends(plan: RunPlan, record: AttemptRecord) -> datetime | None:
    limits = next((stage.deadlines for stage in plan.stages if stage.name == record.stage), plan.deadlines)
    return kill_deadline(limits, record.stop) if record.stop else None


def _stopping(plan: RunPlan, record: AttemptRecord, reason: StopReason, stops: list[StopAttempt | None]) -> Decision:
    facts = reasons.STOPPING.with_facts(attempt=record.number, stage=record.stage, why=reason.value)
    if reason is StopReason.HANG:
        facts = reasons.NO_HEARTBEAT.with_facts(attempt=record.number, stage=record.stage)
    return Decision(Phase.STOPPING, facts, record.stage, stops=_without_none(stops), wake_at=_patience_ends(plan, record))


def _next(plan: RunPlan, observed: Observed, now: datetime) -> Decision:
    """Nothing lives: end, pause, wait or start."""
    current = observed.current
    if current is None:
        return Decision(Phase.SUCCEEDED, reasons.ALL_STAGES_VERIFIED)
    paused = pause(plan.suspend, observed.wishes)
    if paused is StopReason.SUSPEND:
        return Decision(Phase.SUSPENDED, reasons.USER_REQUESTED, current.name)
    if paused is StopReason.INTERRUPT:
        return Decision(Phase.STOPPED, reasons.INTERRUPTED, current.name)
    changed = [stage.name for stage in observed.stages if stage.changed_from]
    if changed and not observed.wishes.redo:
        facts = reasons.STAGE_CHANGED.with_facts(stages=", ".join(f"'{name}'" for name in changed))
        return Decision(Phase.REFUSED, facts, current.name)
    deadline = run_deadline(plan.deadlines, observed.wishes.since)
    if deadline is not None and deadline <= now:
        return Decision(Phase.FAILED, reasons.DEADLINE_EXCEEDED.with_facts(seconds=plan.deadlines.run_seconds), current.name)
    return _try(plan, observed, current, now)


def _try(plan: RunPlan, observed: Observed, current: StageObserved, now: datetime) -> Decision:
    """Start the current stage, at once or when its retry is due, unless its budget is spent."""
    stage = plan.stage(current.name)
    verdict = retry(current.attempts, stage.retries, observed.wishes.forgiven.get(current.name, 0))
    if isinstance(verdict, GiveUp):
        return Decision(Phase.FAILED, _exhausted(current.name, verdict), current.name)
    if verdict.at is not None and verdict.at > now:
        last = current.attempts[-1]
        facts = reasons.STAGE_RETRYING.with_facts(
            attempt=last.number, failure_class=last.verdict.failure_class, message=last.verdict.message
        )
        return Decision(Phase.RETRYING, facts, current.name, wake_at=verdict.at)
    facts = reasons.PROVISIONING.with_facts(attempt=current.next_attempt, stage=current.name)
    return Decision(Phase.RUNNING, facts, current.name, start=StartAttempt(_job(plan, stage, observed), stage.env))


def _exhausted(stage: str, verdict: GiveUp) -> Reason:
    log = verdict.attempt.record.log_file
    return reasons.RETRIES_EXHAUSTED.with_facts(
        stage=stage,
        attempt=verdict.attempt.number,
        failure_class=verdict.failure_class,
        retries="not retried" if verdict.budget == 0 else f"{verdict.budget} of {verdict.budget} retries spent",
        message=verdict.attempt.verdict.message.rstrip("."),
        log=f". Log: {log}." if log else ".",
        advice=reasons.ADVICE[verdict.failure_class],
    )


def _job(plan: RunPlan, stage: StagePlan, observed: Observed) -> StageJob:
    seen = observed.stage(stage.name)
    attempt = seen.next_attempt
    return StageJob(
        run=plan.name,
        stage=stage.name,
        attempt=attempt,
        engine=stage.engine,
        seed=plan.seed,
        system_prompt=plan.system_prompt,
        config=stage.config,
        config_digest=stage.config_digest,
        inputs={wire.role: _input(plan, observed, wire.stage) for wire in stage.wires},
        data=stage.data,
        output_uri=output_uri(plan.root_uri, stage.name, attempt),
        resume_from=seen.intermediate[-1].ref if seen.intermediate else None,
        report_dir=report_dir(plan.root_uri, stage.name, attempt),
        keep_intermediate=plan.retention.keep_intermediate,
        threads=stage.resources.cpus,
    )


def _input(plan: RunPlan, observed: Observed, source: str) -> CheckpointRef:
    if source == BASE_MODEL:
        return plan.model
    output = observed.stage(source).output
    if output is None:
        raise AssertionError(f"stage '{source}' is read before it is done; the plan's order forbids that")
    return output


def _without_none(stops: list[StopAttempt | None]) -> tuple[StopAttempt, ...]:
    return tuple(stop for stop in stops if stop is not None)
