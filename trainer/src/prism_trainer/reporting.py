"""What a running stage tells the outside: heartbeat, metrics, samples, result. And what the outside tells it: stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism_trainer.contract.report import METRICS, PROGRESS, RESULT, MetricsLine, Progress, StageResult

HEARTBEAT_SECONDS = 1.0
PARENT_PID = "PRISM_PARENT_PID"


class Reporter:
    """Writes into the attempt's report folder. A context: entering starts the heartbeat and listens for SIGTERM."""

    def __init__(self, folder: Path, stage: str, attempt: int) -> None:
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
        self._write_progress()
        self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heartbeat.join()
        self._write_progress()

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
    def latest(self) -> dict[str, float]:
        """Newest value of every metric so far."""
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

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """`step` steps are done; one line of metrics."""
        self._step, self._advanced_at = step, utc_now()
        self._metrics = {**self._metrics, **metrics}
        line = MetricsLine(step=step, attempt=self._attempt, time=self._advanced_at, metrics=_finite(metrics))
        with (self._folder / METRICS).open("a") as file:
            file.write(line.model_dump_json() + "\n")

    def dump(self, step: int, samples: Iterable[dict[str, Any]]) -> None:
        """Every sample of a step with its scores, one JSON object a line."""
        folder = self._folder / "samples"
        folder.mkdir(exist_ok=True)
        with (folder / f"step-{step:06d}.jsonl").open("w") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)

    def result(self, result: StageResult) -> None:
        """The last word; whoever started the stage reads this and the exit code."""
        _replace(self._folder / RESULT, result.to_message())

    def _beat(self) -> None:
        parent = int(os.environ.get(PARENT_PID, "0"))
        while not self._done.wait(HEARTBEAT_SECONDS):
            if parent and os.getppid() != parent:
                self._stop.set()
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
        return (time.monotonic() - self._training_since) / done * (self._total_steps - self._step)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in metrics.items() if abs(value) < float("inf")}


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)
