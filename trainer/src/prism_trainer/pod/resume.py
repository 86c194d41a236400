"""The checkpoint an attempt goes on from: the newest sound one of its own configuration, of whichever attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.errors import CheckpointCorruptError
from prism_trainer.pod.copies import Copies
from prism_trainer.pod.survey import Committed, survey
from prism_trainer.stores import FolderStore, Store, is_object

log = logging.getLogger(__name__)


def newest_sound(
    candidates: Sequence[Committed], open_one: Callable[[Committed], CheckpointRef]
) -> tuple[CheckpointRef | None, list[Committed]]:
    """The last candidate that `open_one` does not refuse as damaged; and those that it refused on the way."""
    damaged: list[Committed] = []
    for candidate in reversed(candidates):
        try:
            return open_one(candidate), damaged
        except CheckpointCorruptError as error:
            log.warning("%s. It is passed over for the next older one.", error)
            damaged.append(candidate)
    return None, damaged


def find_resume_point(job: StageJob, store: Store, copies: Copies) -> CheckpointRef | None:
    """As a local path, verified to the last byte; None to begin at the input.

    What this very attempt committed and is damaged is removed, because the trainer will commit that step again. Folders of other
    attempts are only read.
    """
    found, damaged = newest_sound(_candidates(job, store, copies), lambda one: _open(one, copies))
    for one in damaged:
        if one.attempt == job.attempt:
            _remove(one.uri, store, copies)
    return found


def _candidates(job: StageJob, store: Store, copies: Copies) -> list[Committed]:
    """With object storage also what lies here alone: committed, and its upload not done."""
    found = {one.uri: one for one in survey(store, job).intermediate}
    if is_object(job.output_uri):
        for one in survey(FolderStore(), copies.local_job(job)).intermediate:
            found.setdefault(copies.uri(one.uri), one)
    return sorted(found.values(), key=lambda one: (one.manifest.step, one.attempt))


def _open(one: Committed, copies: Copies) -> CheckpointRef:
    if is_object(one.uri):
        return copies.fetch_checkpoint(one.ref)
    FolderStore().verify(one.ref)
    return one.ref


def _remove(uri: str, store: Store, copies: Copies) -> None:
    if is_object(uri):
        store.remove(uri)
    FolderStore().remove(copies.path(uri))
