"""Copies of what this attempt commits and reports, to object storage, while it goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from prism_trainer.contract.checkpoint import MANIFEST
from prism_trainer.contract.job import StageJob
from prism_trainer.pod.board import Board
from prism_trainer.pod.copies import Copies
from prism_trainer.pod.survey import Committed, survey
from prism_trainer.stores import FolderStore, is_object


class Mirror:
    """Used by one thread at a time. What the storage takes as paths needs no copy."""

    def __init__(self, job: StageJob, outbox: Path, copies: Copies, board: Board) -> None:
        """`job` as the storage has it; `outbox` is a folder on the file system of the copies."""
        self._job, self._local = job, copies.local_job(job)
        self._outbox, self._copies, self._board = outbox, copies, board
        self._copied: set[tuple[str, str]] = set()
        self._reported: dict[Path, tuple[int, int]] = {}

    def copy_checkpoints(self) -> None:
        """The newest committed one that is not there yet. Older ones are no longer of use, and the trainer may be removing them."""
        if not is_object(self._job.output_uri):
            return
        found = survey(FolderStore(), self._local)
        own = [one for one in (*found.intermediate, *found.finals) if one.attempt == self._job.attempt]
        if not own:
            return
        newest = (own[-1].uri, own[-1].manifest.provenance.created_at)  # a damaged one may have been made again in the same place
        if newest not in self._copied and self._link(own[-1]):
            self._copies.store.upload_checkpoint(self._outbox, self._copies.uri(own[-1].uri), lambda _: self._board.advance())
            self._copied.add(newest)
            shutil.rmtree(self._outbox, ignore_errors=True)

    def copy_reports(self) -> None:
        """Files that changed since they were copied last."""
        if not is_object(self._job.report_dir):
            return
        for file in sorted(path for path in Path(self._local.report_dir).rglob("*") if path.is_file() and path.suffix != ".partial"):
            try:
                state = (file.stat().st_mtime_ns, file.stat().st_size)
                content = file.read_bytes() if self._reported.get(file) != state else None
            except FileNotFoundError:
                continue
            if content is not None:
                self._copies.store.client.write(self._copies.uri(str(file)), content)
                self._reported[file] = state

    def _link(self, one: Committed) -> bool:
        """A second name for each file, so that the trainer may remove its own in mid-copy. False where it already has."""
        shutil.rmtree(self._outbox, ignore_errors=True)
        try:
            for path in (*(entry.path for entry in one.manifest.files), MANIFEST):
                (self._outbox / path).parent.mkdir(parents=True, exist_ok=True)
                os.link(Path(one.uri) / path, self._outbox / path)
        except FileNotFoundError:
            return False
        return True
