"""What the container shows of itself: the supervisor's phase, or the trainer's own heartbeat while that runs."""

from __future__ import annotations

import threading
from pathlib import Path

from pydantic import ValidationError

from prism_trainer.contract.report import PROGRESS, Progress
from prism_trainer.reporting import utc_now


class Board:
    """Written by the supervisor's threads, read by the progress server's."""

    def __init__(self, stage: str, attempt: int) -> None:
        now = utc_now()
        self._lock = threading.Lock()
        self._own = Progress(stage=stage, attempt=attempt, phase="starting", advanced_at=now, updated_at=now)
        self._trainers: Path | None = None

    def phase(self, name: str, resume_from: str | None = None) -> None:
        """The supervisor works: steps and metrics stay as the trainer left them."""
        last = self.progress()
        with self._lock:
            now = utc_now()
            known = {"phase": name, "advanced_at": now, "updated_at": now, "resume_from": resume_from or last.resume_from}
            self._own, self._trainers = last.model_copy(update=known), None

    def advance(self) -> None:
        """A sign of work."""
        with self._lock:
            self._own = self._own.model_copy(update={"advanced_at": utc_now()})

    def follow(self, report_dir: Path, resume_from: str | None) -> None:
        """From now on the trainer's heartbeat counts, once there is one."""
        self.phase("starting", resume_from)
        with self._lock:
            self._trainers = report_dir / PROGRESS

    def progress(self) -> Progress:
        """As of now."""
        with self._lock:
            own, file = self._own, self._trainers
        trainers = read_progress(file) if file else None
        if trainers is None:
            return own.model_copy(update={"updated_at": utc_now()})
        return trainers.model_copy(update={"resume_from": own.resume_from})


def read_progress(file: Path) -> Progress | None:
    """None for a file that is missing or damaged: the next heartbeat replaces it."""
    try:
        return Progress.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
