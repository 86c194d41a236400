"""Reads a run folder into values. The only module of the report that does so, and it never fails on what it finds.

A run may be unfinished, interrupted or damaged when someone asks for its report. What cannot be read becomes a note that the report
prints, and everything else is still shown.

    run_dir/status.json                                           the PrismRun with its status
    run_dir/results.json                                          one EvaluationRow a checkpoint
    run_dir/stages/<stage>/attempt-<n>/{job,progress,result}.json, metrics.jsonl
    run_dir/checkpoints/<stage>/attempt-<n>/step-<k>/manifest.json, results/samples.jsonl
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from prism_operator import names
from prism_operator.api import PrismRun
from prism_operator.local.files import JOB, STATUS
from prism_operator.report.record import Attempt, CommittedCheckpoint, RunRecord, StageRecord
from prism_trainer.contract.checkpoint import MANIFEST, CheckpointManifest
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import METRICS, PROGRESS, RESULT, MetricsLine, Progress, StageResult
from prism_trainer.contract.results import EVALUATION_SAMPLES, HELD_OUT, RESULTS, EvaluationRow, EvaluationSample

SAMPLE_LIMIT = 50_000
"""Samples read from one evaluation: seven benchmarks at full length fill gigabytes, and the page shows a few responses."""
PIPELINE = ("sft", "discriminator", "alignment", "rlvr", "evaluation")

Value = TypeVar("Value", bound=BaseModel)


def read_run(run_dir: Path) -> RunRecord:
    """All that the folder tells about its run."""
    reader = _Reader(run_dir)
    run = reader.run()
    stages = tuple(reader.stage(folder) for folder in _folders(reader.stages_dir))
    rows = tuple(reader.rows())
    return RunRecord(
        name=run.metadata.name if run else run_dir.resolve().name,
        run=run,
        stages=_in_order(stages, run),
        rows=tuple(row for row in rows if row.benchmark == HELD_OUT),
        benchmarks=tuple(row for row in rows if row.benchmark != HELD_OUT),
        samples=tuple(reader.samples()),
        checkpoints=tuple(reader.checkpoints()),
        notes=tuple(reader.notes),
    )


def _in_order(stages: tuple[StageRecord, ...], run: PrismRun | None) -> tuple[StageRecord, ...]:
    """As the PrismRun lists them; where it does not, as the pipeline runs them."""
    listed = [stage.name for stage in run.spec.stages] if run else []

    def position(stage: StageRecord) -> tuple[int, int, str]:
        place = listed.index(stage.name) if stage.name in listed else len(listed)
        return place, PIPELINE.index(stage.kind) if stage.kind in PIPELINE else len(PIPELINE), stage.name

    return tuple(sorted(stages, key=position))


@dataclass
class _Reader:
    """Parses the folder's files and keeps a note of each that it could not."""

    run_dir: Path
    notes: list[str] = field(default_factory=list)

    @property
    def stages_dir(self) -> Path:
        return Path(names.stages_dir(str(self.run_dir)))

    @property
    def checkpoints_dir(self) -> Path:
        return Path(names.checkpoints_uri(str(self.run_dir)))

    def run(self) -> PrismRun | None:
        """As the runner last wrote it."""
        file = self.run_dir / STATUS
        if not file.exists():
            self._note(file, "is not there (yet)")
        return self._value(file, PrismRun)

    def stage(self, folder: Path) -> StageRecord:
        return StageRecord(folder.name, tuple(self._attempt(number, path) for number, path in _attempts(folder)))

    def rows(self) -> Iterator[EvaluationRow]:
        for entry in self._json(self.run_dir / RESULTS) or []:
            try:
                yield EvaluationRow.model_validate(entry)
            except ValidationError as error:
                self._note(self.run_dir / RESULTS, f"has a row that is not an EvaluationRow: {_reason(error)}")

    def samples(self) -> Iterator[EvaluationSample]:
        """Of the last attempt of each stage that evaluated."""
        for stage in _folders(self.checkpoints_dir):
            files = [step / "results" / EVALUATION_SAMPLES for step in _steps(stage)]
            for file in [file for file in files if file.is_file()][-1:]:
                yield from self._lines(file, EvaluationSample, SAMPLE_LIMIT)

    def checkpoints(self) -> Iterator[CommittedCheckpoint]:
        for stage in _folders(self.checkpoints_dir):
            for step in _steps(stage):
                if (step / MANIFEST).exists() and (manifest := self._manifest(step / MANIFEST)):
                    yield CommittedCheckpoint(step, manifest)

    def _manifest(self, file: Path) -> CheckpointManifest | None:
        """The digest that the file states is for people; the one that counts is computed, and here the two are compared."""
        content = self._json(file)
        written = content.pop("digest", None) if isinstance(content, dict) else None
        try:
            manifest = CheckpointManifest.model_validate(content)
        except ValidationError as error:
            self._note(file, f"is not a CheckpointManifest: {_reason(error)}")
            return None
        if written not in (None, manifest.digest):
            self._note(file, "states a digest that its content does not have: it was changed after it was committed")
        return manifest

    def _attempt(self, number: int, folder: Path) -> Attempt:
        return Attempt(
            number=number,
            job=self._value(folder / JOB, StageJob),
            progress=self._value(folder / PROGRESS, Progress),
            result=self._value(folder / RESULT, StageResult),
            lines=tuple(self._lines(folder / METRICS, MetricsLine)),
        )

    def _json(self, file: Path) -> Any:
        try:
            return json.loads(file.read_bytes())
        except FileNotFoundError:
            self._note(file, "is not there (yet)")
        except (OSError, ValueError) as error:
            self._note(file, f"could not be read: {_reason(error)}")
        return None

    def _value(self, file: Path, model: type[Value]) -> Value | None:
        """A file that the attempt may not have written yet, so that its absence is not worth a note."""
        try:
            return model.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._note(file, f"is not a {model.__name__}: {_reason(error)}")
            return None

    def _lines(self, file: Path, model: type[Value], limit: int | None = None) -> Iterator[Value]:
        """Whole lines only: a process that is killed leaves half a line at the end."""
        if not file.is_file():
            return
        skipped = 0
        with file.open("rb") as lines:
            for line in itertools.islice(lines, limit):
                try:
                    yield model.model_validate_json(line)
                except ValidationError:
                    skipped += 1
            if next(lines, None):
                self._note(file, f"is long; its first {limit} lines were read")
        if skipped:
            self._note(file, f"has {skipped} line(s) that are not a {model.__name__}; they were left out")

    def _note(self, file: Path, what: str) -> None:
        self.notes.append(f"{file.relative_to(self.run_dir).as_posix()} {what}")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _attempts(stage: Path) -> list[tuple[int, Path]]:
    """By number, so that attempt-10 comes after attempt-9; anything else in the folder is not an attempt's."""
    return sorted((number, path) for path in _folders(stage) if (number := names.attempt_number(path.name)))


def _steps(stage: Path) -> Iterator[Path]:
    """Checkpoint folders of a stage, attempt by attempt."""
    for _, attempt in _attempts(stage):
        yield from (path for path in _folders(attempt) if path.name.startswith("step-"))


def _reason(error: Exception) -> str:
    """The first problem, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
    return str(error).splitlines()[0]
