"""What the user is told: all of the status in one value, from the plan, what is observed and what was decided. Pure."""

from __future__ import annotations

from datetime import datetime

from prism_operator.api import (
    MAX_MESSAGE_CHARACTERS,
    PrismRunStatus,
    ProvenanceStatus,
    StageStatus,
    Summary,
)
from prism_operator.conditions import make_conditions, rejected_conditions
from prism_operator.decide import TERMINAL, Decision, Phase
from prism_operator.observed import Observed
from prism_operator.plan import RunPlan
from prism_operator.problems import Problem
from prism_operator.stage_status import make_stage_status
from prism_operator.timestamps import format_time


def make_status(plan: RunPlan, observed: Observed, decision: Decision, previous: PrismRunStatus | None, now: datetime) -> PrismRunStatus:
    """A finished run's status stays as it is, but for the generation: kubectl wait refuses conditions of an older one."""
    if previous is not None and observed.is_finished:
        return _refreshed(previous, plan.generation)
    stages = tuple(make_stage_status(stage, observed.stage(stage.name), decision, now) for stage in plan.stages)
    current = next((stage for stage in stages if stage.name == decision.stage), None)
    outputs = [stage.checkpoint for stage in stages if stage.checkpoint and stage.state == "Succeeded"]
    started = [attempt.started_at for stage in stages for attempt in stage.attempts if attempt.started_at]
    return PrismRunStatus(
        observed_generation=plan.generation,
        summary="Pending" if _is_untouched(observed) and decision.start else _SUMMARIES[decision.phase],
        reason=decision.reason.name,
        message=_message(decision, observed),
        stage=decision.stage or "",
        progress=_progress(stages),
        attempt=_attempt(current, decision),
        gpus=plan.stage(current.name).resources.num_gpus if current else 0,
        gpu_seconds=round(sum(stage.gpu_seconds for stage in stages), 1),
        cluster=next((record.cluster for record in observed.live if record.cluster), None),
        started_at=(previous.started_at if previous else None) or min(started, default=None) or format_time(now),
        finished_at=_finished_at(decision, previous, now),
        conditions=make_conditions(plan, observed, decision, stages, previous, now),
        stages=stages,
        checkpoint=outputs[-1] if outputs else None,
        provenance=_provenance(plan, observed, previous),
    )


def rejected_status(problems: tuple[Problem, ...], generation: int, previous: PrismRunStatus | None, now: datetime) -> PrismRunStatus:
    """A spec that cannot be planned; whatever ran before is still told."""
    if previous is not None and previous.finished_at:
        return _refreshed(previous, generation)
    message = "; ".join(str(problem) for problem in problems)[:MAX_MESSAGE_CHARACTERS]
    base = previous or PrismRunStatus(started_at=None, finished_at=None, checkpoint=None)
    update = {
        "observed_generation": generation,
        "summary": "Refused",
        "reason": "SpecRejected",
        "message": message,
        "conditions": rejected_conditions(message, generation, previous, now),
    }
    return base.model_copy(update=update)


def _finished_at(decision: Decision, previous: PrismRunStatus | None, now: datetime) -> str | None:
    """A run found complete again ended when it did."""
    if decision.phase not in TERMINAL:
        return None
    return (previous.finished_at if previous else None) or format_time(now)


def _refreshed(previous: PrismRunStatus, generation: int) -> PrismRunStatus:
    conditions = tuple(c.model_copy(update={"observed_generation": generation}) for c in previous.conditions)
    return previous.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _is_untouched(observed: Observed) -> bool:
    return not any(stage.attempts or stage.final for stage in observed.stages)


_SUMMARIES: dict[Phase, Summary] = {
    Phase.PENDING: "Pending",
    Phase.RUNNING: "Running",
    Phase.RETRYING: "Retrying",
    Phase.STOPPING: "Stopping",
    Phase.SUSPENDED: "Suspended",
    Phase.STOPPED: "Stopped",
    Phase.REFUSED: "Refused",
    Phase.SUCCEEDED: "Succeeded",
    Phase.FAILED: "Failed",
}


def _message(decision: Decision, observed: Observed) -> str:
    """Damaged manifests count for nothing, and whoever wonders why must find them here."""
    return " ".join([decision.reason.message, *observed.damaged])[:MAX_MESSAGE_CHARACTERS]


def _progress(stages: tuple[StageStatus, ...]) -> int:
    """Percent of the run, all stages that run weighing the same."""
    shares = [_share(stage) for stage in stages if stage.state != "Skipped"]
    return int(100 * sum(shares) / len(shares)) if shares else 100


def _share(stage: StageStatus) -> float:
    if stage.state == "Succeeded":
        return 1.0
    return min(stage.step / stage.total_steps, 1.0) if stage.total_steps else 0.0


def _attempt(current: StageStatus | None, decision: Decision) -> int:
    if decision.start is not None:
        return decision.start.job.attempt
    return current.attempts[-1].number if current and current.attempts else 0


def _provenance(plan: RunPlan, observed: Observed, previous: PrismRunStatus | None) -> ProvenanceStatus:
    """What a cluster told while it was there is kept."""
    before = previous.provenance if previous else ProvenanceStatus()
    images = {record.stage: image for record in (*observed.remaining, *observed.live) for image in record.images.values()}
    finals = [stage.final for stage in observed.stages if stage.final]
    return ProvenanceStatus(
        seed=plan.seed,
        config_digests={stage.name: stage.config_digest for stage in plan.stages},
        versions=dict(finals[-1].versions) if finals and finals[-1].versions else before.versions,
        images=before.images | images,
        data=before.data | {uri: digest for final in finals for uri, digest in final.data.items()},
    )
