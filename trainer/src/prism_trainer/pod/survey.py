"""What a store holds of one stage of one run: committed checkpoints and unfinished folders, of every attempt."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.errors import CheckpointCorruptError
from prism_trainer.stores import Store

_ATTEMPT = re.compile(r"attempt-([1-9][0-9]*)")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Committed:
    """A checkpoint with a sound manifest; its payload is not read yet."""

    uri: str
    attempt: int
    manifest: CheckpointManifest

    @property
    def ref(self) -> CheckpointRef:
        return CheckpointRef(stage=self.manifest.stage, uri=self.uri, digest=self.manifest.digest, step=self.manifest.step)


@dataclass(frozen=True)
class Unfinished:
    """A folder without a manifest."""

    uri: str
    attempt: int


@dataclass(frozen=True)
class Survey:
    """Of the job's own run, stage and config digest; whatever else lies there is nobody's business here."""

    finals: tuple[Committed, ...]
    intermediate: tuple[Committed, ...]
    """Oldest first: by step, then attempt."""
    unfinished: tuple[Unfinished, ...]


def survey(store: Store, job: StageJob) -> Survey:
    """Reads manifests only. `job.output_uri` is the attempt's own folder, its neighbours are the other attempts'."""
    found = list(_look(store, job))
    committed = [one for one in found if isinstance(one, Committed) and one.manifest.config_digest == job.config_digest]
    committed.sort(key=lambda one: (one.manifest.step, one.attempt, one.uri))
    return Survey(
        finals=tuple(one for one in committed if one.manifest.final),
        intermediate=tuple(one for one in committed if not one.manifest.final),
        unfinished=tuple(one for one in found if isinstance(one, Unfinished)),
    )


def newest_final(store: Store, folder: str, digest: str | None) -> Committed | None:
    """The last final checkpoint below a stage's folder, of whatever run; with `digest` that one."""
    found = [committed for uri in store.checkpoint_folders(folder) if (committed := _committed(store, uri)) and committed.manifest.final]
    wanted = [one for one in found if digest in (None, one.manifest.digest)]
    return max(wanted, key=lambda one: (one.attempt, one.manifest.step), default=None)


def _committed(store: Store, uri: str) -> Committed | None:
    name = _ATTEMPT.fullmatch(posixpath.basename(posixpath.dirname(uri)))
    manifest = store.read_manifest(uri) if name else None
    return Committed(uri, int(name[1]), manifest) if name and manifest else None


def _look(store: Store, job: StageJob) -> Iterator[Committed | Unfinished]:
    for uri in store.checkpoint_folders(posixpath.dirname(job.output_uri.rstrip("/"))):
        name = _ATTEMPT.fullmatch(posixpath.basename(posixpath.dirname(uri)))
        if name is None:
            continue
        try:
            manifest = store.read_manifest(uri)
        except CheckpointCorruptError as error:
            log.warning("%s; it counts for nothing and stays", error)
            continue
        if manifest is None:
            yield Unfinished(uri, int(name[1]))
        elif (manifest.run, manifest.stage) == (job.run, job.stage):
            yield Committed(uri, int(name[1]), manifest)
