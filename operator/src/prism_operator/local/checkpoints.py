"""Checkpoints in a folder: which are committed, which are damaged, which were never finished. Reading only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from prism_operator.children import CommittedCheckpoint, Unfinished
from prism_operator.names import attempt_number, checkpoints_uri
from prism_trainer.contract.checkpoint import MANIFEST, CheckpointManifest


class DamagedManifestError(Exception):
    """A sentence; inside this executor only."""


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest, its digest recomputed. The payload is verified by whoever loads it."""
    path = folder / MANIFEST
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError) as error:
        raise DamagedManifestError(f"{path} is no sound manifest ({_brief(error)}); the checkpoint counts for nothing and stays") from error


@lru_cache(maxsize=4096)
def _read(path: Path, mtime_ns: int, size: int) -> CheckpointManifest:
    """A manifest is read once: it never changes, and can name thousands of files."""
    raw = json.loads(path.read_bytes())
    recorded = raw.pop("digest", None)
    manifest = CheckpointManifest.model_validate(raw)
    if recorded != manifest.digest:
        raise ValueError(f"its digest is {manifest.digest}, and it says {recorded}")
    return manifest


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def subfolders(folder: Path) -> list[Path]:
    """By name; none where there is no folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def attempts_in(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """(stage, attempt, folder) under `stages/` or `checkpoints/`."""
    for stage in subfolders(folder):
        for path in subfolders(stage):
            number = attempt_number(path.name)
            if number is not None:
                yield stage.name, number, path


def list_checkpoints(run_dir: Path, run: str) -> tuple[list[CommittedCheckpoint], list[Unfinished], list[str]]:
    """Committed, unfinished, and sentences about damaged ones."""
    committed, unfinished, damaged = [], [], []
    for stage, attempt, folder in attempts_in(Path(checkpoints_uri(str(run_dir)))):
        for path in subfolders(folder):
            if not (path / MANIFEST).exists():
                unfinished.append(Unfinished(stage, attempt, str(path)))
                continue
            try:
                manifest = read_manifest(path)
            except DamagedManifestError as error:
                damaged.append(f"{error}.")
                continue
            if (manifest.run, manifest.stage) != (run, stage):
                damaged.append(f"{path} belongs to stage '{manifest.stage}' of run '{manifest.run}'; it counts for nothing and stays.")
                continue
            committed.append(CommittedCheckpoint.from_manifest(attempt, str(path), manifest))
    return committed, unfinished, damaged
