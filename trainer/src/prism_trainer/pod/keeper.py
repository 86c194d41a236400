"""What goes on in the background while the trainer works: copies to object storage, and the removal of what newer checkpoints replace."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from prism_trainer.contract.checkpoint import MANIFEST
from prism_trainer.contract.job import StageJob
from prism_trainer.errors import PrismError
from prism_trainer.pod.mirror import Mirror
from prism_trainer.pod.places import Places
from prism_trainer.pod.retention import remove_all, superseded
from prism_trainer.pod.survey import survey
from prism_trainer.stores import Store

log = logging.getLogger(__name__)


class Keeper:
    """A context; its thread lives as long. What fails in the thread is told and tried again."""

    failure: PrismError | None = None
    """Why the last checkpoint could not be copied, after the end."""

    def __init__(self, job: StageJob, output: Path, store: Store, mirror: Mirror, places: Places) -> None:
        """`job` has the addresses of the storage, `output` is the folder the trainer commits to."""
        self._job, self._output, self._store, self._mirror, self._places = job, output, store, mirror, places
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._known: set[Path] = set()
        self._reports_due = 0.0
        self._last_complaint = ""

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The trainer is dead: the rest is copied. What keeps it from that is for the owner to judge."""
        self._done.set()
        self._thread.join()
        try:
            self._mirror.copy_checkpoints()
        except PrismError as error:
            log.warning("the last checkpoint stays uncopied: %s", error)
            self.failure = error

    def _keep(self) -> None:
        while not self._done.wait(self._places.keep_seconds):
            try:
                self._look()
            except (PrismError, OSError) as error:
                if str(error) != self._last_complaint:
                    log.warning("in the background: %s; it is tried again", error)
                self._last_complaint = str(error)

    def _look(self) -> None:
        self._mirror.copy_checkpoints()
        if time.monotonic() >= self._reports_due:
            self._reports_due = time.monotonic() + self._places.report_seconds
            self._mirror.copy_reports()
        committed = set(self._output.glob(f"*/{MANIFEST}"))
        if committed - self._known:
            remove_all(self._store, superseded(survey(self._store, self._job), self._job.attempt, self._job.keep_intermediate))
            self._known = committed
