"""What a running stage tells the outside: heartbeat, metrics, samples, result. And what the outside tells it: stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism_trainer.checkpoints import storage_error
from prism_trainer.contract.report import METRICS, PARENT_PID, PROGRESS, RESULT, MetricsLine, Progress, StageResult
from prism_trainer.errors import Stopped, StorageError

HEARTBEAT_SECONDS = 1.0


class Reporter:
    """Writes into the attempt's report folder. A context: entering starts the heartbeat and listens for SIGTERM."""

    def __init__(self, folder: Path, stage: str, attempt: int) -> None:
        with _telling(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._stage, self._attempt = stage, attempt
        self._phase, self._step, self._total_steps, self._first_step = "loading", 0, 0, 0
        self._metrics: dict[str, float] = {}
        self._started = self._training_since = time.monotonic()
        self._advanced_at = utc_now()
        self._stop, self._done = threading.Event(), threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Reporter:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        self._try_progress()
        self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heartbeat.join()
        self._try_progress()

    @property
    def stop_requested(self) -> bool:
        """Asked at step boundaries."""
        return self._stop.is_set()

    @property
    def seconds(self) -> float:
        """Since the attempt began."""
        return time.monotonic() - self._started

    @property
    def steps_done(self) -> int:
        return self._step

    @property
    def total_steps(self) -> int:
        return self._total_steps

    @property
    def latest(self) -> dict[str, float]:
        """Metrics of the latest step."""
        return _finite(self._metrics)

    def begin(self, first_step: int, total_steps: int, phase: str = "training") -> None:
        """Loading is over; the ETA counts from here."""
        self._first_step = self._step = first_step
        self._total_steps = total_steps
        self._training_since = time.monotonic()
        self.phase(phase)

    def phase(self, name: str) -> None:
        self._phase = name
        self._advanced_at = utc_now()

    def fetching(self) -> None:
        """Called while something comes over the network: it is a sign of life, and the moment to stop."""
        self.phase("fetching")
        if self.stop_requested:
            raise Stopped(None)

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """A phase in between; afterwards the one before goes on."""
        before = self._phase
        self.phase(name)
        try:
            yield
        finally:
            self.phase(before)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """`step` steps are done. Its metrics take the place of the last step's: what it did not measure is not shown as if it had."""
        self._step, self._advanced_at = step, utc_now()
        self._metrics = dict(metrics)  # a copy: the heartbeat reads it while the stage may go on filling its own
        line = MetricsLine(step=step, attempt=self._attempt, time=self._advanced_at, metrics=_finite(metrics))
        path = self._folder / METRICS
        with _telling(path), path.open("a") as file:
            file.write(line.model_dump_json() + "\n")

    def dump(self, step: int, samples: Iterable[dict[str, Any]]) -> None:
        """Every sample of a step with its scores, one JSON object a line."""
        path = self._folder / "samples" / f"step-{step:06d}.jsonl"
        with _telling(path):
            path.parent.mkdir(exist_ok=True)
            with path.open("w") as file:
                file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)

    def result(self, result: StageResult) -> None:
        """The last word; whoever started the stage reads this and the exit code."""
        path = self._folder / RESULT
        with _telling(path):
            _replace(path, result.to_message())

    def _beat(self) -> None:
        parent = int(os.environ.get(PARENT_PID, "0"))
        while not self._done.wait(HEARTBEAT_SECONDS):
            if parent and os.getppid() != parent:
                self._stop.set()
            self._try_progress()

    def _try_progress(self) -> None:
        """A disk that is full for a while must not end the heartbeat: a stage without one is killed as hung."""
        with contextlib.suppress(OSError):
            self._write_progress()

    def _write_progress(self) -> None:
        progress = Progress(
            stage=self._stage,
            attempt=self._attempt,
            phase=self._phase,
            step=self._step,
            total_steps=self._total_steps,
            eta_seconds=self._eta(),
            metrics=_finite(self._metrics),
            advanced_at=self._advanced_at,
            updated_at=utc_now(),
        )
        with self._lock:
            _replace(self._folder / PROGRESS, progress.model_dump_json(exclude_none=True))

    def _eta(self) -> float | None:
        done = self._step - self._first_step
        if done < 1:
            return None
        return (time.monotonic() - self._training_since) / done * max(0, self._total_steps - self._step)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in metrics.items() if abs(value) < float("inf")}


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """An OSError becomes a sentence."""
    try:
        yield
    except OSError as error:
        unforeseen = StorageError(f"report '{path}' cannot be written ({error}); correct that and run again: checkpoints are kept")
        raise storage_error(f"report '{path}'", path, error) or unforeseen from error


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)
