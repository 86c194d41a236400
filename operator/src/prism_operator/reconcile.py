"""The story of the operator: one function for every trigger, on a cluster and on one machine.

    raw -> parse_run -> make_plan -> observe -> decide -> carried out by the world -> make_status

Level-based: everything is derived anew from the object, the children and the manifests, so it can be run again at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.children import Children
from prism_operator.decide import Decision, StartAttempt, StopAttempt, decide
from prism_operator.errors import BadRunError
from prism_operator.observed import observe
from prism_operator.parse import parse_run, read_status
from prism_operator.plan import RunPlan, Site, make_plan
from prism_operator.problems import Problem
from prism_operator.status import make_status, rejected_status


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

    async def delete(self, uri: str) -> None:
        """Delete a checkpoint folder, its manifest first."""
        ...

    async def start(self, start: StartAttempt) -> None:
        """Start an attempt that does not exist yet."""
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
        return Pass(status, problems=refusal.problems)
    observed = observe(plan, await world.list_children(plan), previous)
    decision = decide(plan, observed, now)
    for stop in decision.stops:
        await world.stop(stop)
    for uri in decision.deletes:
        await world.delete(uri)
    if decision.start is not None:
        await world.start(decision.start)
    status = make_status(plan, observed, decision, previous, now)
    await world.write_status(status)
    return Pass(status, decision)
