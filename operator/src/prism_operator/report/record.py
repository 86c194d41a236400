"""What a run left behind, as values: attempts joined into stages, metrics into series. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.timestamps import parse_time
from prism_trainer.contract.checkpoint import CheckpointManifest
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import MetricsLine, Progress, StageResult
from prism_trainer.contract.results import EvaluationRow, EvaluationSample

END_SHARE = 0.1
"""Share of a series that counts as its beginning and as its end: one step of reinforcement learning is mostly noise."""


@dataclass(frozen=True)
class Series:
    """One metric of one stage by step, over all attempts."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def end_size(self) -> int:
        return max(1, round(len(self.values) * END_SHARE))

    @property
    def beginning(self) -> float:
        """Mean of the first tenth."""
        return sum(self.values[: self.end_size]) / self.end_size

    @property
    def ending(self) -> float:
        """Mean of the last tenth."""
        return sum(self.values[-self.end_size :]) / self.end_size

    def smoothed(self, window: int) -> tuple[float, ...]:
        """Centred mean over `window` steps, over fewer at the ends."""
        half = window // 2
        parts = (self.values[max(0, i - half) : i + half + 1] for i in range(len(self.values)))
        return tuple(sum(part) / len(part) for part in parts)


@dataclass(frozen=True)
class Attempt:
    """One attempt's files."""

    number: int
    job: StageJob | None = None
    progress: Progress | None = None
    result: StageResult | None = None
    lines: tuple[MetricsLine, ...] = ()

    @property
    def starts_after(self) -> int:
        """Steps that an earlier attempt had committed and this one did not repeat."""
        if self.job and self.job.resume_from:
            return self.job.resume_from.step
        return 0 if self.job else self.lines[0].step - 1

    @property
    def seconds(self) -> float:
        """Wall time; of an attempt that left no result, the time that its metrics span."""
        if self.result:
            return self.result.seconds
        times = [time for line in (*self.lines[:1], *self.lines[-1:]) if (time := parse_time(line.time))]
        return max(0.0, (times[-1] - times[0]).total_seconds()) if times else 0.0

    @property
    def outcome(self) -> str:
        return self.result.outcome if self.result else "Unfinished"


@dataclass(frozen=True)
class StageRecord:
    """A stage: its attempts, in order."""

    name: str
    attempts: tuple[Attempt, ...]

    @property
    def job(self) -> StageJob | None:
        return next((attempt.job for attempt in reversed(self.attempts) if attempt.job), None)

    @property
    def kind(self) -> str:
        return self.job.config.kind if self.job else self.name

    @property
    def seconds(self) -> float:
        """Of all attempts."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def steps(self) -> int:
        told = [attempt.progress.step for attempt in self.attempts if attempt.progress]
        logged = [line.step for line in self.lines[-1:]]
        return max(told[-1:] + logged, default=0)

    @cached_property
    def lines(self) -> tuple[MetricsLine, ...]:
        """One line a step: where an attempt repeated the steps of an earlier one, the repetition is what the stage's result rests on."""
        kept: dict[int, MetricsLine] = {}
        for attempt in self.attempts:
            if attempt.lines:
                kept = {step: line for step, line in kept.items() if step <= attempt.starts_after}
                for line in attempt.lines:
                    before = kept[line.step].metrics if line.step in kept else {}
                    kept[line.step] = line.model_copy(update={"metrics": {**before, **line.metrics}})
        return tuple(kept[step] for step in sorted(kept))

    def series(self, metric: str) -> Series:
        found = [(line.step, line.metrics[metric]) for line in self.lines if metric in line.metrics]
        return Series(tuple(step for step, _ in found), tuple(value for _, value in found))


@dataclass(frozen=True)
class CommittedCheckpoint:
    """A manifest and the folder it was found in."""

    folder: Path
    manifest: CheckpointManifest


@dataclass(frozen=True)
class RunRecord:
    """Everything a report is made from."""

    name: str
    run: PrismRun | None
    stages: tuple[StageRecord, ...]
    rows: tuple[EvaluationRow, ...]
    """Of the evaluations' own data; `benchmarks` are those of named benchmarks."""
    samples: tuple[EvaluationSample, ...]
    checkpoints: tuple[CommittedCheckpoint, ...]
    notes: tuple[str, ...]
    benchmarks: tuple[EvaluationRow, ...] = ()

    @property
    def status(self) -> PrismRunStatus:
        return (self.run and self.run.status) or PrismRunStatus()

    def state(self, stage: StageRecord) -> str:
        """As the status has it; without one, as the last attempt left it."""
        told = next((entry.state for entry in self.status.stages if entry.name == stage.name), None)
        return told or (stage.attempts[-1].outcome if stage.attempts else "Pending")

    def seconds(self, stage: StageRecord) -> float:
        """Over all attempts: as the newest checkpoint tells, or as the attempts do where they went on beyond it."""
        committed = [entry.manifest.provenance.seconds for entry in self.checkpoints if entry.manifest.stage == stage.name]
        return max([stage.seconds, *committed])

    def stage(self, name: str) -> StageRecord | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def row(self, stage: str) -> EvaluationRow | None:
        """What was measured of the last checkpoint of a stage."""
        return max((row for row in self.rows if row.stage == stage), key=lambda row: row.steps, default=None)

    def of_kind(self, *kinds: str) -> tuple[StageRecord, ...]:
        return tuple(stage for stage in self.stages if stage.kind in kinds)

    @property
    def main_line(self) -> tuple[EvaluationRow, ...]:
        """What was measured on the way to the policy that most stages went into: a shorter way is a baseline to it."""
        found = [(stage, row) for stage in self.stages if (row := self.row(stage.name))]
        if not found:
            return self.rows
        end, _ = max(found, key=lambda entry: len(self.ancestors(entry[0])))
        line = {end.name, *(stage.name for stage in self.ancestors(end))}
        outside = [row for row in self.rows if self.stage(row.stage) is None]
        return (*outside[:1], *(row for stage, row in found if stage.name in line))

    def ancestors(self, stage: StageRecord) -> tuple[StageRecord, ...]:
        """Every stage whose output went into this one, however many stages ago."""
        found: dict[str, StageRecord] = {}
        waiting = [stage]
        while waiting:
            job = waiting.pop().job
            for name in {reference.stage for reference in job.inputs.values()} if job else ():
                parent = self.stage(name)
                if parent and parent.name not in found:
                    found[parent.name] = parent
                    waiting.append(parent)
        return tuple(found.values())
