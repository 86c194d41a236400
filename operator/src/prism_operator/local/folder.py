"""The run folder as a whole: opened by one runner at a time, remembered between runners in `status.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prism_operator.errors import RunFolderBusyError, RunFolderError
from prism_operator.local.files import LOCK, STATUS, make_folder, unwritable
from prism_operator.names import BASE_DIR_ANNOTATION

LOCK_SECONDS = 0.5
"""`prism status` takes the lock for an instant to see whether it is free, which must not refuse a runner."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """The kernel lets go of the lock when its holder dies, however it dies."""
    make_folder(run_dir)
    lock = FileLock(run_dir / LOCK, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunFolderBusyError(
            f"another `prism run` works in {run_dir}; wait for it, stop it, or give this run a storage.local.path of its own"
        ) from error
    except OSError as error:
        raise RunFolderError(unwritable(run_dir / LOCK, error)) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(run_dir: Path) -> bool:
    """Whether a runner works in it now."""
    try:
        with FileLock(run_dir / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def read_object(run_dir: Path) -> dict[str, Any] | None:
    """The PrismRun as it was last written; none in a new folder."""
    try:
        value = json.loads((run_dir / STATUS).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def next_document(raw: dict[str, Any], stored: dict[str, Any] | None, base_dir: Path, now: str) -> dict[str, Any]:
    """The object with the fields an API server would keep: generation, creation time."""
    before = (stored or {}).get("metadata", {})
    same = stored is not None and stored.get("spec") == raw.get("spec")
    generation = int(before.get("generation", 0)) + (0 if same else 1)
    annotations = {**raw["metadata"].get("annotations", {}), BASE_DIR_ANNOTATION: str(base_dir)}
    created = before.get("creationTimestamp", now)
    metadata = {**raw["metadata"], "annotations": annotations, "generation": generation, "creationTimestamp": created}
    document = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata, "spec": raw["spec"]}
    return document if stored is None or "status" not in stored else {**document, "status": stored["status"]}


def refuse_foreign(run_dir: Path, stored: dict[str, Any] | None, name: str) -> None:
    """A folder holds one run: checkpoints of another would be neither used nor safe."""
    owner = (stored or {}).get("metadata", {}).get("name")
    if owner not in (None, name):
        raise RunFolderError(f"{run_dir} belongs to run '{owner}', and this one is '{name}'; give it a storage.local.path of its own")
