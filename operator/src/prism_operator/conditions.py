"""The conditions of a run: every known type from the first write on, in one order. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from prism_operator import reasons
from prism_operator.api import MAX_MESSAGE_CHARACTERS, Condition, ConditionStatus, PrismRunStatus, StageStatus
from prism_operator.children import StopReason
from prism_operator.decide import Decision, Phase
from prism_operator.names import stage_condition
from prism_operator.observed import Observed
from prism_operator.plan import RunPlan, StagePlan
from prism_operator.reasons import Reason
from prism_operator.timestamps import format_time

Finding = tuple[str, ConditionStatus, Reason]


def make_conditions(
    plan: RunPlan,
    observed: Observed,
    decision: Decision,
    stages: Iterable[StageStatus],
    previous: PrismRunStatus | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """Observations, not wishes: Suspended is true only once nothing lives."""
    findings: list[Finding] = [
        (reasons.ACCEPTED, "False", decision.reason) if decision.phase is Phase.REFUSED else (reasons.ACCEPTED, "True", reasons.VALID),
        _admitted(plan, observed),
        _cluster_ready(observed, decision),
        *[_stage(plan.stage(stage.name), stage, observed, decision) for stage in stages],
        _stalled(observed, decision),
        _suspended(decision),
        *_ends(decision),
    ]
    return _dated(findings, plan.generation, previous, now)


def rejected_conditions(message: str, generation: int, previous: PrismRunStatus | None, now: datetime) -> tuple[Condition, ...]:
    """Accepted is false; what else was known stays, under the new generation."""
    rejected: Finding = (reasons.ACCEPTED, "False", reasons.SPEC_REJECTED.with_facts(problems=message))
    if previous is not None and previous.conditions:
        others = tuple(c.model_copy(update={"observed_generation": generation}) for c in previous.conditions if c.type != reasons.ACCEPTED)
        return _dated([rejected], generation, previous, now) + others
    unknown = (reasons.ADMITTED, reasons.CLUSTER_READY, reasons.STALLED, reasons.SUSPENDED, reasons.SUCCEEDED)
    findings: list[Finding] = [rejected, *[(type_, "Unknown", reasons.NO_ATTEMPT) for type_ in unknown]]
    return _dated([*findings, (reasons.FINISHED, "False", reasons.IN_PROGRESS)], generation, previous, now)


def _dated(findings: Iterable[Finding], generation: int, previous: PrismRunStatus | None, now: datetime) -> tuple[Condition, ...]:
    """The transition time moves only when the status does."""
    conditions = []
    for type_, status, reason in findings:
        before = previous.condition(type_) if previous else None
        since = before.last_transition_time if before and before.status == status else format_time(now)
        conditions.append(
            Condition(
                type=type_,
                status=status,
                reason=reason.name,
                message=reason.message[:MAX_MESSAGE_CHARACTERS],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return tuple(conditions)


def _admitted(plan: RunPlan, observed: Observed) -> Finding:
    if plan.queue is None:
        return reasons.ADMITTED, "True", reasons.NOT_QUEUED
    if any(record.pending and record.pending.queued for record in observed.live):
        return reasons.ADMITTED, "False", reasons.WAITING_FOR_QUOTA.with_facts(queue=plan.queue.name)
    if observed.live:
        return reasons.ADMITTED, "True", reasons.QUOTA_RESERVED.with_facts(queue=plan.queue.name)
    return reasons.ADMITTED, "Unknown", reasons.NO_ATTEMPT


def _cluster_ready(observed: Observed, decision: Decision) -> Finding:
    if observed.live:
        record = observed.live[-1]
        if record.pending is not None:
            return reasons.CLUSTER_READY, "False", Reason(record.pending.reason, record.pending.message)
        if record.loss is not None:
            return reasons.CLUSTER_READY, "False", Reason("WorkersMissing", record.loss.message)
        return reasons.CLUSTER_READY, "True", reasons.CLUSTER_READY_NOW.with_facts(attempt=record.number, stage=record.stage)
    if decision.reason.name == reasons.START_REFUSED.name:
        return reasons.CLUSTER_READY, "False", decision.reason
    if decision.start is not None:
        job = decision.start.job
        return reasons.CLUSTER_READY, "False", reasons.PROVISIONING.with_facts(attempt=job.attempt, stage=job.stage)
    return reasons.CLUSTER_READY, "False", reasons.NO_ATTEMPT


def _stage(plan: StagePlan, stage: StageStatus, observed: Observed, decision: Decision) -> Finding:
    type_ = stage_condition(stage.name)
    output = observed.stage(stage.name).output
    if output is not None:
        verified = reasons.STAGE_SKIPPED if plan.pinned else reasons.STAGE_VERIFIED
        return type_, "True", verified.with_facts(uri=output.uri, step=output.step)
    match stage.state:
        case "Failed":
            return type_, "False", decision.reason
        case "Running" | "Retrying" | "Stopping":
            return type_, "Unknown", decision.reason
        case "Stopped":
            return type_, "Unknown", reasons.STAGE_HELD
        case _ if decision.stage == stage.name and decision.phase is Phase.PENDING:
            return type_, "Unknown", decision.reason
        case _:
            return type_, "Unknown", reasons.STAGE_WAITING


def _stalled(observed: Observed, decision: Decision) -> Finding:
    hangs = decision.phase is Phase.STOPPING and decision.reason.name == reasons.NO_HEARTBEAT.name
    asked = any(record.stop and record.stop.reason is StopReason.HANG for record in observed.live)
    if hangs or asked:
        return reasons.STALLED, "True", decision.reason
    return reasons.STALLED, "False", reasons.PROGRESSING if observed.live else reasons.NO_ATTEMPT


def _suspended(decision: Decision) -> Finding:
    if decision.phase in (Phase.SUSPENDED, Phase.STOPPED) and decision.reason.name != reasons.DELETED.name:
        return reasons.SUSPENDED, "True", decision.reason
    return reasons.SUSPENDED, "False", reasons.NOT_SUSPENDED


def _ends(decision: Decision) -> list[Finding]:
    if decision.phase is Phase.SUCCEEDED:
        return [
            (reasons.FINISHED, "True", Reason("Succeeded", decision.reason.message)),
            (reasons.SUCCEEDED, "True", decision.reason),
        ]
    if decision.phase is Phase.FAILED:
        name = "DeadlineExceeded" if decision.reason.name == "DeadlineExceeded" else "Failed"
        return [
            (reasons.FINISHED, "True", Reason(name, decision.reason.message)),
            (reasons.SUCCEEDED, "False", Reason(reasons.STAGE_FAILED, decision.reason.message)),
        ]
    return [(reasons.FINISHED, "False", reasons.IN_PROGRESS), (reasons.SUCCEEDED, "Unknown", reasons.IN_PROGRESS)]
