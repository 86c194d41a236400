"""What to do next, from the plan and what is observed. Pure: no clock, no I/O; everything can be decided again at any moment.

The rules, in order. What lives and is not wanted is stopped. What lives and is wanted is left alone, until somebody wants it paused or
a deadline passes. Only when nothing lives may something be started, and only the first stage that is not done: so there is at most one
living attempt a run, and every input is committed before its reader starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from prism_operator import reasons
from prism_operator.children import AttemptRecord, Outcome, StopReason
from prism_operator.names import BASE_MODEL, checkpoints_uri, output_uri, report_dir
from prism_operator.observed import Observed, StageObserved
from prism_operator.plan import RunPlan, StagePlan
from prism_operator.policies.deadline import (
    exit_deadline,
    expiry,
    force_deadline,
    hang_deadline,
    kill_deadline,
    queue_deadline,
    run_deadline,
    stage_deadline,
    start_deadline,
)
from prism_operator.policies.retention import leftovers
from prism_operator.policies.retry import GiveUp, retry, warm_retries
from prism_operator.policies.suspend import pause
from prism_operator.reasons import Reason
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import FailureClass


class Phase(StrEnum):
    """What goes on."""

    PENDING = "Pending"
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
    followers: tuple[StageJob, ...] = ()
    """First attempts of the stages that go on in the same pods, each after the one before; inputs not made yet have no digest."""
    env: tuple[tuple[str, str], ...] = ()
    warm_retries: Mapping[FailureClass, int] = field(default_factory=dict)
    """How often the trainer may be started again in the attempt's own pods."""


@dataclass(frozen=True)
class StopAttempt:
    """Ask one attempt to save and stop; `kill` when it was asked long ago."""

    stage: str
    number: int
    reason: StopReason
    kill: bool = False
    cluster: str = ""


@dataclass(frozen=True)
class Decision:
    """One pass. What ends is written down first, then stops, releases and deletions are carried out, and then the start."""

    phase: Phase
    reason: Reason
    stage: str | None = None
    start: StartAttempt | None = None
    stops: tuple[StopAttempt, ...] = ()
    releases: tuple[AttemptRecord, ...] = ()
    """Ended attempts whose clusters are to go."""
    lets_go: bool = False
    """Nothing is left of an object that is being deleted: it may go."""
    expires: bool = False
    """The object has been finished for long enough: delete it."""
    deletes: tuple[str, ...] = ()
    wake_at: datetime | None = None


def decide(plan: RunPlan, observed: Observed, now: datetime) -> Decision:
    """The whole of the operator's judgement."""
    decision = _tend(plan, observed, now) if observed.live else _rest(plan, observed, now)
    held = (*observed.live, *observed.remaining)
    asked = {(stop.stage, stop.number) for stop in decision.stops}
    forced = [_force(plan, record, now) for record in held if (record.stage, record.number) not in asked]
    return replace(
        decision,
        stops=(*decision.stops, *_without_none(forced)),
        releases=_releases(observed),
        wake_at=_earliest(decision.wake_at, *(_force_at(plan, record) for record in held)),
    )


def _releases(observed: Observed) -> tuple[AttemptRecord, ...]:
    """One record a cluster; a cluster in which the next stage goes on stays."""
    in_use = {record.cluster for record in observed.live}
    ended = {record.cluster: record for record in observed.remaining if record.deleting is None and record.cluster not in in_use}
    return tuple(ended.values())


def _rest(plan: RunPlan, observed: Observed, now: datetime) -> Decision:
    """Nothing lives."""
    if observed.wishes.deleted:
        return Decision(Phase.STOPPED, reasons.DELETED, lets_go=not observed.remaining)
    if observed.is_finished:
        expires = expiry(plan.ttl_seconds, observed.finished_at)
        due = expires is not None and expires <= now and not observed.remaining
        phase = Phase.SUCCEEDED if observed.current is None else Phase.FAILED
        return Decision(phase, reasons.IN_PROGRESS, expires=due, wake_at=expires)
    decision = _next(plan, observed, now)
    deletes = tuple(uri for stage in observed.stages for uri in leftovers(stage, plan.retention))
    if decision.phase in TERMINAL and plan.ttl_seconds is not None:
        return replace(decision, deletes=deletes, wake_at=now + timedelta(seconds=plan.ttl_seconds))
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
    phase, facts = Phase.RUNNING, reasons.STAGE_RUNNING.with_facts(attempt=wanted.number)
    if wanted.pending is not None:
        phase, facts = Phase.PENDING, Reason(wanted.pending.reason, wanted.pending.message)
        wake_at = _earliest(wake_at, wanted.pending.until)
    deletes = leftovers(observed.stage(wanted.stage), plan.retention)
    return Decision(phase, facts, wanted.stage, stops=_without_none(stops), deletes=deletes, wake_at=wake_at)


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
    if observed.wishes.deleted:
        return StopReason.DELETED, None
    if record.loss is not None:
        return _LOSSES.get(record.loss.failure_class, StopReason.WORKER_LOST), None
    stage = observed.stage(record.stage)
    limits = plan.stage(record.stage).deadlines
    if stage.final is not None:
        due = [(StopReason.LINGERING, exit_deadline(limits, record, stage.final.created_at))]
    else:
        paused = pause(plan.suspend, observed.wishes)
        if paused is not None:
            return paused, None
        due = [
            (StopReason.RUN_DEADLINE, run_deadline(plan.deadlines, observed.wishes.since)),
            (StopReason.STAGE_DEADLINE, stage_deadline(limits, stage.attempts, observed.wishes.forgiven.get(stage.name, 0))),
            (StopReason.HANG, hang_deadline(limits, record)),
            (StopReason.START_DEADLINE, start_deadline(limits, record)),
            (StopReason.QUEUE_DEADLINE, queue_deadline(plan.deadlines, record)),
        ]
    passed = next((reason for reason, at in due if at is not None and at <= now), None)
    return passed, min((at for _, at in due if at is not None), default=None)


_LOSSES: dict[FailureClass | None, StopReason] = {
    FailureClass.HEAD_LOST: StopReason.HEAD_LOST,
    FailureClass.PREEMPTED: StopReason.CLUSTER_LOST,
}


def _stop(plan: RunPlan, observed: Observed, record: AttemptRecord, reason: StopReason, now: datetime) -> StopAttempt | None:
    """The next step of stopping: ask, wait, kill; killed again on every pass until it is gone."""
    if record.stop is None:
        return StopAttempt(record.stage, record.number, reason, kill=observed.wishes.impatient, cluster=record.cluster)
    due = _patience_ends(plan, record)
    late = due is None or due <= now
    kill = StopAttempt(record.stage, record.number, record.stop.reason, kill=True, cluster=record.cluster)
    return kill if late or observed.wishes.impatient else None


def _patience_ends(plan: RunPlan, record: AttemptRecord) -> datetime | None:
    """On a cluster the kubelet kills what does not end in its grace, and who is faster loses the last words."""
    if record.cluster:
        return _force_at(plan, record)
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
    if paused and observed.remaining:
        return _letting_go(observed.remaining[0])
    if paused is StopReason.SUSPEND:
        return Decision(Phase.SUSPENDED, reasons.USER_REQUESTED, current.name)
    if paused is StopReason.INTERRUPT:
        return Decision(Phase.STOPPED, reasons.INTERRUPTED, current.name)
    changed = [stage.name for stage in observed.stages if stage.changed_from]
    if changed and not observed.wishes.redo:
        redo = reasons.REDO if plan.storage.local else ""
        facts = reasons.STAGE_CHANGED.with_facts(stages=", ".join(f"'{name}'" for name in changed), redo=redo)
        return Decision(Phase.REFUSED, facts, current.name)
    deadline = run_deadline(plan.deadlines, observed.wishes.since)
    if deadline is not None and deadline <= now:
        facts = reasons.DEADLINE_EXCEEDED.with_facts(seconds=plan.deadlines.run_seconds, again=_again(plan))
        return Decision(Phase.FAILED, facts, current.name)
    return _try(plan, observed, current, now)


def _try(plan: RunPlan, observed: Observed, current: StageObserved, now: datetime) -> Decision:
    """Start the current stage, at once or when its retry is due, unless its budget is spent."""
    stage = plan.stage(current.name)
    verdict = retry(current, stage.retries, observed.wishes.forgiven.get(current.name, 0))
    if isinstance(verdict, GiveUp):
        return Decision(Phase.FAILED, _exhausted(plan, current.name, verdict), current.name)
    if verdict.at is not None and verdict.at > now:
        last = current.attempts[-1]
        facts = reasons.STAGE_RETRYING.with_facts(
            attempt=last.number, failure_class=last.verdict.failure_class, message=last.verdict.message
        )
        return Decision(Phase.RETRYING, facts, current.name, wake_at=verdict.at)
    failed = next((a.record for a in current.remaining if a.verdict.outcome is not Outcome.SUCCEEDED), None)
    if failed is not None:
        return _letting_go(failed)
    facts = reasons.PROVISIONING.with_facts(attempt=current.next_attempt, stage=current.name)
    warm = warm_retries(current, stage.retries, observed.wishes.forgiven.get(current.name, 0))
    start = StartAttempt(_job(plan, stage, observed), _followers(plan, stage, observed), stage.env, warm)
    return Decision(Phase.RUNNING, facts, current.name, start=start)


def _followers(plan: RunPlan, first: StagePlan, observed: Observed) -> tuple[StageJob, ...]:
    """The stages right after it that have its shape, have not been tried, and read nothing that comes later."""
    if plan.cluster_policy != "Reuse":
        return ()
    jobs: list[StageJob] = []
    for stage in plan.stages[plan.stages.index(first) + 1 :]:
        seen = observed.stage(stage.name)
        if stage.shape != first.shape or seen.is_done or seen.next_attempt != 1:
            break
        jobs.append(_job(plan, stage, observed))
    return tuple(jobs)


def _letting_go(record: AttemptRecord) -> Decision:
    """A new attempt starts only when every pod of the old one is gone."""
    return Decision(Phase.STOPPING, reasons.LETTING_GO.with_facts(attempt=record.number, stage=record.stage), record.stage)


def _force(plan: RunPlan, record: AttemptRecord, now: datetime) -> StopAttempt | None:
    due = _force_at(plan, record)
    reason = record.stop.reason if record.stop else StopReason.HEAD_LOST if record.alive else StopReason.LINGERING
    return StopAttempt(record.stage, record.number, reason, kill=True, cluster=record.cluster) if due and due <= now else None


def _force_at(plan: RunPlan, record: AttemptRecord) -> datetime | None:
    limits = next((stage.deadlines for stage in plan.stages if stage.name == record.stage), plan.deadlines)
    return force_deadline(limits, record)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _exhausted(plan: RunPlan, stage: str, verdict: GiveUp) -> Reason:
    log = verdict.attempt.record.log_file
    return reasons.RETRIES_EXHAUSTED.with_facts(
        stage=stage,
        attempt=verdict.attempt.number,
        failure_class=verdict.failure_class,
        retries="not retried" if verdict.budget == 0 else f"{verdict.budget} of {verdict.budget} retries spent",
        message=verdict.attempt.verdict.message.rstrip("."),
        log=f". Log: {log}." if log else ".",
        advice=f"{reasons.ADVICE[verdict.failure_class]} {_again(plan)}",
    )


def _again(plan: RunPlan) -> str:
    """The end is the end on a cluster; on one machine the same command goes on."""
    return reasons.AGAIN if plan.storage.local else reasons.AGAIN_ON_A_CLUSTER.format(run=plan.name)


def _job(plan: RunPlan, stage: StagePlan, observed: Observed) -> StageJob:
    seen = observed.stage(stage.name)
    inputs = {wire.role: _input(plan, observed, wire.stage) for wire in stage.wires}
    return job_of(plan, stage, seen.next_attempt, inputs, seen.intermediate[-1].ref if seen.intermediate else None)


def job_of(plan: RunPlan, stage: StagePlan, attempt: int, inputs: dict[str, CheckpointRef], resume_from: CheckpointRef | None) -> StageJob:
    """One attempt of a stage, nothing left to look up."""
    return StageJob(
        run=plan.name,
        stage=stage.name,
        attempt=attempt,
        engine=stage.engine,
        seed=plan.seed,
        system_prompt=plan.system_prompt,
        config=stage.config,
        config_digest=stage.config_digest,
        inputs=inputs,
        data=stage.data,
        output_uri=output_uri(plan.root_uri, stage.name, attempt),
        resume_from=resume_from,
        report_dir=report_dir(plan.root_uri, stage.name, attempt),
        keep_intermediate=plan.retention.keep_intermediate,
        threads=stage.resources.cpus,
        nodes=stage.resources.nodes,
        gpus_per_node=stage.resources.gpus_per_node,
    )


def _input(plan: RunPlan, observed: Observed, source: str) -> CheckpointRef:
    """An input that a stage before it in the same pods will make has its address and digest filled in there."""
    if source == BASE_MODEL:
        return plan.model
    unmade = CheckpointRef(stage=source, uri=checkpoints_uri(plan.root_uri), digest=None, step=0, revision=None)
    return observed.stage(source).output or unmade


def _without_none(stops: list[StopAttempt | None]) -> tuple[StopAttempt, ...]:
    return tuple(stop for stop in stops if stop is not None)
