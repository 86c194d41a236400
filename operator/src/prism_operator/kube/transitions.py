"""What changed between two statuses: events for people, and numbers for Prometheus. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prism_operator import reasons
from prism_operator.api import AttemptStatus, PrismRunStatus
from prism_operator.children import Outcome
from prism_operator.timestamps import parse_time
from prism_trainer.contract.report import FailureClass

EVENT_OF_CLASS = {
    FailureClass.HANG: "HangDetected",
    FailureClass.NODE_LOST: "NodeLost",
    FailureClass.HEAD_LOST: "HeadLost",
    FailureClass.CHECKPOINT_CORRUPT: "CheckpointRejected",
    FailureClass.DEADLINE_EXCEEDED: "DeadlineExceeded",
}
"""Any other failure is AttemptFailed."""


@dataclass(frozen=True)
class RunEvent:
    """An Event of Kubernetes; its reason is stable."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class EndedAttempt:
    """An attempt whose end the status tells of for the first time."""

    stage: str
    attempt: AttemptStatus


def ended_attempts(before: PrismRunStatus | None, after: PrismRunStatus) -> Iterator[EndedAttempt]:
    """In the order of the stages."""
    known = {(s.name, a.number) for s in (before.stages if before else ()) for a in s.attempts if a.outcome != Outcome.RUNNING}
    for stage in after.stages:
        for attempt in stage.attempts:
            if attempt.outcome != Outcome.RUNNING and (stage.name, attempt.number) not in known:
                yield EndedAttempt(stage.name, attempt)


def begun_attempts(before: PrismRunStatus | None, after: PrismRunStatus) -> Iterator[datetime]:
    """When the attempts were created whose stages have begun since: their pods and gangs are there."""
    waited = {(s.name, a.number) for s in (before.stages if before else ()) if s.state == "Pending" for a in s.attempts}
    for stage in after.stages:
        created = parse_time(stage.attempts[-1].started_at) if stage.attempts else None
        if created is not None and stage.state == "Running" and (stage.name, stage.attempts[-1].number) in waited:
            yield created


def events_between(before: PrismRunStatus | None, after: PrismRunStatus) -> list[RunEvent]:
    """What is out of the ordinary, and the end. Ordinary transitions are conditions, with their times: an Event each would double the
    writes of a run and says nothing more."""
    events = [
        RunEvent("Warning", EVENT_OF_CLASS.get(FailureClass(e.attempt.failure_class), "AttemptFailed"), _told(e))
        for e in ended_attempts(before, after)
        if e.attempt.failure_class and e.attempt.outcome == Outcome.FAILED
    ]
    for type_, event in (
        (reasons.SUSPENDED, RunEvent("Normal", "Suspended", after.message)),
        (reasons.FINISHED, RunEvent("Normal" if after.summary == "Succeeded" else "Warning", f"Run{after.summary}", after.message)),
    ):
        if after.is_true(type_) and not (before and before.is_true(type_)):
            events.append(event)
    if before and before.is_true(reasons.SUSPENDED) and not after.is_true(reasons.SUSPENDED) and not after.is_true(reasons.FINISHED):
        events.append(RunEvent("Normal", "Resumed", "The run goes on from its last checkpoint."))
    if after.summary == "Refused" and (before is None or (before.summary, before.message) != (after.summary, after.message)):
        events.append(RunEvent("Warning", after.reason, after.message))
    return events


def _told(ended: EndedAttempt) -> str:
    return f"Attempt {ended.attempt.number} of stage '{ended.stage}' failed ({ended.attempt.failure_class}): {ended.attempt.message}"
