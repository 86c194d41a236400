"""One trainer from start to burial: given its job file, watched, asked to stop or killed."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from pydantic import ValidationError

from prism_trainer.checkpoints import storage_error
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.pod import PodJob
from prism_trainer.contract.report import PROGRESS, RESULT, StageResult
from prism_trainer.errors import StorageError
from prism_trainer.pod.board import read_progress
from prism_trainer.pod.lost_workers import LostWorkers, watching
from prism_trainer.pod.memory import oom_kills
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop
from prism_trainer.pod.trainer_process import TrainerProcess
from prism_trainer.pod.verdict import End

LOG = "log.txt"

log = logging.getLogger(__name__)


def run_trainer(job: StageJob, pod: PodJob, places: Places, stop: Stop) -> End:
    """From start to burial. `job` is the trainer's, with local paths."""
    report_dir, job_file = Path(job.report_dir), places.job_file(job.stage)
    _prepare(job, report_dir, job_file)
    kills_before = oom_kills(places.cgroup_dir)
    with watching(places.ray_watch if _waits_for_its_workers(job) else None, places.ray_address) as lost_workers:
        trainer = TrainerProcess(places.trainer, job_file, report_dir / LOG)
        try:
            watch = _Watch(trainer, report_dir, pod, lost_workers, places.lost_worker_seconds)
            while not trainer.has_ended():
                watch.look(stop.requested)
                time.sleep(places.tick_seconds)
        finally:
            code = trainer.bury()
        lost_worker = lost_workers.first()
    return End(
        exit_code=code,
        result=_read_result(report_dir, job),
        hung_for=watch.hung_for,
        stop_asked=watch.asked_at is not None,
        killed_after=pod.stop_grace_seconds if watch.killed else None,
        oom_kills=oom_kills(places.cgroup_dir) - kills_before,
        lost_worker=lost_worker,
        waited_for_lost=watch.waited_for_lost,
        last_line=trainer.last_line(),
        last_words=trainer.last_words(),
    )


class _Watch:
    """Times by the clock that nobody sets: the trainer's sign of work is that what it wrote last has changed."""

    def __init__(self, trainer: TrainerProcess, report_dir: Path, pod: PodJob, lost: LostWorkers, lost_seconds: float) -> None:
        self._trainer, self._report_dir, self._pod = trainer, report_dir, pod
        self._lost, self._lost_seconds, self._lost_at = lost, lost_seconds, 0.0
        self.waited_for_lost = False
        self._sign, self._seen_at = "", time.monotonic()
        self.asked_at: float | None = None
        self.killed = False
        self.hung_for: float | None = None

    def look(self, stop_requested: bool) -> None:
        now = time.monotonic()
        if stop_requested and self.asked_at is None:
            log.info("asked to stop; the trainer has %d s to save", self._pod.stop_grace_seconds)
            self.asked_at = now
            self._trainer.ask_to_stop()
        elif self.asked_at is not None and now - self.asked_at > self._pod.stop_grace_seconds:
            self.killed = True
            self._trainer.kill()
        elif self._lost_for(now) > self._lost_seconds:
            self.waited_for_lost = True
            self._trainer.kill()
        elif self._silence(now) > self._pod.progress_seconds:
            self.hung_for = now - self._seen_at
            self._trainer.kill()

    def _lost_for(self, now: float) -> float:
        """Seconds since a worker died. The trainer is left some to say so itself: it knows more."""
        found = self._lost.first()
        if found is None:
            return 0.0
        if not self._lost_at:
            log.warning("%s: %s", found.failure_class, found.sentence)
            self._lost_at = now
        return now - self._lost_at

    def _silence(self, now: float) -> float:
        progress = read_progress(self._report_dir / PROGRESS)
        if progress is not None and progress.advanced_at != self._sign:
            self._sign, self._seen_at = progress.advanced_at, now
        return now - self._seen_at


def _waits_for_its_workers(job: StageJob) -> bool:
    """Not an evaluation: it starts a dead replica once more itself, and says so when that dies too."""
    return job.engine == "verl" and job.config.kind != "evaluation"


def _read_result(report_dir: Path, job: StageJob) -> StageResult | None:
    """None where the trainer died before its last word."""
    try:
        result = StageResult.model_validate_json((report_dir / RESULT).read_bytes())
    except (OSError, ValidationError):
        return None
    return result if (result.stage, result.attempt) == (job.stage, job.attempt) else None


def _prepare(job: StageJob, report_dir: Path, job_file: Path) -> None:
    """What the trainer before it left in the same folder would be taken for its own word."""
    try:
        for folder in (report_dir, job_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for stale in (PROGRESS, RESULT):
            (report_dir / stale).unlink(missing_ok=True)
        job_file.write_text(job.model_dump_json(exclude_none=True))
    except OSError as error:
        unforeseen = StorageError(f"'{report_dir}' and '{job_file}' cannot be prepared ({error}); correct that and run again")
        raise storage_error(f"'{report_dir}'", report_dir, error) or unforeseen from error
