"""The story of the operator: one function for every trigger, on a cluster and on one machine.

    raw -> parse_run -> make_plan -> observe -> decide -> carried out by the world -> make_status

Level-based: everything is derived anew from the object, the children and the manifests, so it can be run again at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from prism_operator import reasons
from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.children import AttemptRecord, Children
from prism_operator.decide import Decision, Phase, StartAttempt, StopAttempt, decide
from prism_operator.errors import BadRunError, StartRefusedError
from prism_operator.observed import Observed, observe
from prism_operator.parse import parse_run, read_status
from prism_operator.plan import RunPlan, Site, make_plan
from prism_operator.problems import Problem
from prism_operator.status import make_status, rejected_status

REFUSED_SECONDS = 15
"""Before an attempt that could not be created is tried again."""


class World(Protocol):
    """All that is done rather than decided."""

    async def survey(self, run: PrismRun) -> Site:
        """Where things lie; BadRunError for what this executor does not carry out."""
        ...

    async def list_children(self, plan: RunPlan) -> Children:
        """Attempts and checkpoints of the run."""
        ...

    async def stop(self, stop: StopAttempt) -> None:
        """Ask an attempt to save and stop, or kill it."""
        ...

    async def release(self, ended: AttemptRecord) -> None:
        """Give back what an ended attempt still holds."""
        ...

    async def let_go(self) -> None:
        """Let an object that is being deleted go."""
        ...

    async def abandon(self) -> None:
        """Where an object that cannot be carried out is being deleted: end what it has, and let it go when nothing is left."""
        ...

    async def expire(self) -> None:
        """Delete an object that has been finished for long enough."""
        ...

    async def delete(self, uri: str) -> None:
        """Delete a checkpoint folder, its manifest first."""
        ...

    async def start(self, plan: RunPlan, start: StartAttempt) -> None:
        """Start an attempt that does not exist yet; StartRefusedError where that cannot be now."""
        ...

    async def write_status(self, status: PrismRunStatus) -> None:
        """Written only where it differs from what is stored."""
        ...


@dataclass(frozen=True)
class Pass:
    """What one reconcile came to; no decision where the object was refused."""

    status: PrismRunStatus
    decision: Decision | None = None
    problems: tuple[Problem, ...] = ()


async def reconcile(raw: dict[str, Any], world: World, now: datetime) -> Pass:
    """Bring the world one step nearer to the object."""
    previous = read_status(raw)
    try:
        parsed = parse_run(raw)
        if parsed.run is None or parsed.problems:
            raise BadRunError(parsed.problems)
        plan = make_plan(parsed.run, await world.survey(parsed.run))
    except BadRunError as refusal:
        generation = int(raw.get("metadata", {}).get("generation", 1))
        status = rejected_status(refusal.problems, generation, previous, now)
        await world.write_status(status)
        await world.abandon()
        return Pass(status, problems=refusal.problems)
    observed = observe(plan, await world.list_children(plan), previous)
    decision = decide(plan, observed, now)
    if decision.stops:  # first, because why an attempt was stopped is remembered in the status alone
        await world.write_status(make_status(plan, observed, decision, previous, now))
    for stop in decision.stops:
        await world.stop(stop)
    for uri in decision.deletes:
        await world.delete(uri)
    if decision.start is not None:
        observed, decision = await _start(plan, observed, decision, previous, world, now)
    status = make_status(plan, observed, decision, previous, now)
    await world.write_status(status)
    await _give_back(decision, world)
    return Pass(status, decision)


async def _start(
    plan: RunPlan, observed: Observed, decision: Decision, previous: PrismRunStatus | None, world: World, now: datetime
) -> tuple[Observed, Decision]:
    """What is to be told afterwards: the attempt as it is now, or why there is none."""
    assert decision.start is not None
    job = decision.start.job
    try:
        await world.start(plan, decision.start)
    except StartRefusedError as refused:
        reason = reasons.START_REFUSED.with_facts(attempt=job.attempt, stage=job.stage, message=str(refused).rstrip(".") + ".")
        wake_at = now + timedelta(seconds=REFUSED_SECONDS)
        return observed, replace(decision, phase=Phase.PENDING, reason=reason, start=None, wake_at=wake_at)
    seen = observe(plan, await world.list_children(plan), previous)
    return seen, replace(decide(plan, seen, now), start=decision.start, releases=decision.releases)


async def _give_back(decision: Decision, world: World) -> None:
    """After the status: what an ended attempt told is kept there, and goes with its cluster everywhere else."""
    for ended in decision.releases:
        await world.release(ended)
    if decision.lets_go:
        await world.let_go()
    if decision.expires:
        await world.expire()
