"""What exists, sorted once into the questions the rules ask. Pure: plan and children in, buckets out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prism_operator.api import PrismRunStatus
from prism_operator.children import AttemptRecord, Children, CommittedCheckpoint, Forgotten, Unfinished, Verdict, Wishes
from prism_operator.plan import RunPlan, StagePlan
from prism_operator.reasons import FINISHED
from prism_operator.verdict import judge
from prism_trainer.contract.checkpoint import CheckpointRef


@dataclass(frozen=True)
class Attempt:
    """One attempt and how it ended."""

    record: AttemptRecord
    verdict: Verdict

    @property
    def number(self) -> int:
        """Counts from 1 within the stage."""
        return self.record.number


@dataclass(frozen=True)
class StageObserved:
    """One stage."""

    name: str
    attempts: tuple[Attempt, ...]
    """In order, one a number."""
    next_attempt: int
    final: CommittedCheckpoint | None
    """Committed final checkpoint with the planned digest: the stage is done."""
    output: CheckpointRef | None
    """What later stages read: the final checkpoint, or the one the stage is skipped with."""
    intermediate: tuple[CommittedCheckpoint, ...]
    """With the planned digest, oldest first; the stage can go on from the last."""
    changed_from: str | None
    """Config digest of committed work, where it is not the planned one."""
    unfinished: tuple[Unfinished, ...]
    forgotten: Forgotten
    """Of attempts that are no longer among `attempts`."""
    superseded: CommittedCheckpoint | None = None
    """Newest final checkpoint of another configuration, where there is none of the planned one. Nobody reads it; nobody forgets it."""

    @property
    def is_done(self) -> bool:
        """Nothing left to run."""
        return self.output is not None

    @property
    def live(self) -> Attempt | None:
        """The newest attempt that lives."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.record.alive), None)

    @property
    def remaining(self) -> tuple[Attempt, ...]:
        """Ended, and their clusters still there."""
        return tuple(attempt for attempt in self.attempts if attempt.record.remains and not attempt.record.alive)

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True)
class Observed:
    """The run."""

    stages: tuple[StageObserved, ...]
    """One for each planned stage, in the plan's order."""
    live: tuple[AttemptRecord, ...]
    """Every living attempt, also of stages that are not planned."""
    remaining: tuple[AttemptRecord, ...]
    """Every ended attempt whose cluster is still there, also of stages that are not planned."""
    is_finished: bool
    """The status said so already. It stays so."""
    wishes: Wishes
    damaged: tuple[str, ...]
    finished_at: str | None = None

    def stage(self, name: str) -> StageObserved:
        """By name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def current(self) -> StageObserved | None:
        """The first stage that is not done."""
        return next((stage for stage in self.stages if not stage.is_done), None)


def observe(plan: RunPlan, children: Children, previous: PrismRunStatus | None) -> Observed:
    """Order and duplicates of the children do not matter."""
    attempts = _unique_attempts(children.attempts)
    return Observed(
        stages=tuple(_observe_stage(stage, attempts, children) for stage in plan.stages),
        live=tuple(record for record in attempts if record.alive),
        remaining=tuple(record for record in attempts if record.remains and not record.alive),
        is_finished=previous is not None and previous.is_true(FINISHED) and not children.wishes.reopen,
        wishes=children.wishes,
        damaged=children.damaged,
        finished_at=previous.finished_at if previous is not None else None,
    )


def _unique_attempts(records: Iterable[AttemptRecord]) -> list[AttemptRecord]:
    """Of two records of one attempt, the living one, then the one that knows more."""
    best: dict[tuple[str, int], AttemptRecord] = {}
    for record in sorted(records, key=lambda record: (record.alive, record.result is not None, record.config_digest is not None)):
        best[record.stage, record.number] = record
    return [best[key] for key in sorted(best)]


def _observe_stage(stage: StagePlan, records: list[AttemptRecord], children: Children) -> StageObserved:
    own = [record for record in records if record.stage == stage.name]
    committed = sorted({c.uri: c for c in children.checkpoints if c.stage == stage.name}.values(), key=lambda c: (c.attempt, c.step, c.uri))
    planned = [c for c in committed if c.config_digest == stage.config_digest]
    final = next((c for c in reversed(planned) if c.final), None)
    unfinished = tuple(sorted({u for u in children.unfinished if u.stage == stage.name}, key=lambda u: u.uri))
    numbers = [r.number for r in own] + [c.attempt for c in committed] + [u.attempt for u in unfinished]
    finals = {(c.attempt, c.config_digest) for c in committed if c.final}
    return StageObserved(
        name=stage.name,
        attempts=tuple(Attempt(r, judge(r, committed_final=_committed_final(r, finals))) for r in own),
        next_attempt=1 + max(numbers, default=0),
        final=final,
        output=stage.pinned or (final.ref if final else None),
        intermediate=tuple(sorted((c for c in planned if not c.final), key=lambda c: (c.step, c.attempt))),
        changed_from=None if stage.pinned or final else _changed_from(stage, own, committed),
        unfinished=unfinished,
        forgotten=children.forgotten.get(stage.name, Forgotten()),
        superseded=None if final else next((c for c in reversed(committed) if c.final), None),
    )


def _committed_final(record: AttemptRecord, finals: set[tuple[int, str]]) -> bool:
    return any(attempt == record.number and record.config_digest in (None, digest) for attempt, digest in finals)


def _changed_from(stage: StagePlan, records: list[AttemptRecord], committed: list[CommittedCheckpoint]) -> str | None:
    """Digest of the newest committed work, unless something under the planned digest was begun after it."""
    other = max((c for c in committed if c.config_digest != stage.config_digest), key=lambda c: c.attempt, default=None)
    begun = [r.number for r in records if r.config_digest == stage.config_digest]
    begun += [c.attempt for c in committed if c.config_digest == stage.config_digest]
    return other.config_digest if other and other.attempt > max(begun, default=0) else None
