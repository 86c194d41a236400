"""Data sets that do not lie on this machine, brought to it: from object storage, or from the Hugging Face hub. A path stays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from prism_trainer.contract.addresses import hub_set
from prism_trainer.contract.job import DataSource
from prism_trainer.errors import DataError, StorageError, UnreachableError
from prism_trainer.pod.copies import Copies
from prism_trainer.stores import is_object
from prism_trainer.stores.hub import UNREACHABLE

LOOK_SECONDS = 1.0
Waiting = Callable[[], None]
"""Called while something is fetched; raising in it ends that."""


def bring_data(sources: Sequence[DataSource], waiting: Waiting = lambda: None) -> tuple[DataSource, ...]:
    """With local paths for addresses. Weights stay."""
    return tuple(_brought(source, waiting) for source in sources)


def _brought(source: DataSource, waiting: Waiting) -> DataSource:
    if is_object(source.uri):
        return source.model_copy(update={"uri": _from_object_storage(source.uri, waiting)})
    found = hub_set(source.uri)
    if found is None:
        if "://" in source.uri:
            raise DataError(f"data set '{source.uri}' is at an address that is not known; expected a path, s3:// or hf://datasets/")
        return source
    revision = source.revision or found.revision
    return source.model_copy(update={"uri": _from_hub(found.id, revision, found.path, waiting), "revision": None})


def _from_object_storage(uri: str, waiting: Waiting) -> str:
    """Endpoint and credentials come from the environment, as every AWS library takes them (AWS_ENDPOINT_URL)."""
    copies = Copies(cache_dir() / "s3", None, lambda _: waiting())
    path = copies.fetch_data(uri)
    if path is None:
        raise DataError(f"data set '{uri}' does not exist; correct its address (a folder's ends in /)")
    return path


def _from_hub(repository: str, revision: str | None, path: str | None, waiting: Waiting) -> str:
    command = [sys.executable, "-m", "prism_trainer.stores.hub", repository, revision or "", path or ""]
    with tempfile.TemporaryFile("w+") as complaints:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True) as child:
            try:
                output = _wait(child, waiting)
            finally:
                child.kill()
        complaints.seek(0)
        said = [line.strip() for line in complaints if line.strip()]
    if child.returncode == 0:
        return output.strip().splitlines()[-1]
    sentence = said[-1] if said else f"data set '{repository}' could not be fetched from the hub"
    raise UnreachableError(sentence) if child.returncode == UNREACHABLE else DataError(sentence)


def _wait(child: subprocess.Popen[str], waiting: Waiting) -> str:
    while True:
        try:
            return child.communicate(timeout=LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            waiting()


def cache_dir() -> Path:
    """Of copies from object storage; the hub has its own ($HF_HOME)."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prism"
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"'{found}' cannot be made ({error.strerror}); set XDG_CACHE_HOME to a folder that can be written") from error
    return found
