"""Data sets that do not lie on this machine, brought to it: from object storage, or from the Hugging Face hub. A path stays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prism_trainer.contract.addresses import HUB, hub_set
from prism_trainer.contract.job import DataSource
from prism_trainer.errors import DataError, StorageError
from prism_trainer.hub.fetching import Waiting, fetch, patiently
from prism_trainer.hub.wanted import data_files
from prism_trainer.pod.copies import Copies
from prism_trainer.stores import is_object


def bring_data(sources: Sequence[DataSource], waiting: Waiting = patiently) -> tuple[DataSource, ...]:
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
    if not source.uri.startswith(HUB) and Path(source.uri).exists():
        raise DataError(f"'{source.uri}' is the id of a data set on Hugging Face, and exists here; write ./{source.uri} or {found.uri}")
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
    found = fetch("data", repository, revision, data_files(path), waiting=waiting) / (path or "")
    if "*" not in found.name and not found.exists():
        raise DataError(f"data set '{repository}' has no '{path}'; correct data[].uri")
    return str(found)


def cache_dir() -> Path:
    """Of copies from object storage; the hub has its own ($HF_HOME)."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prism"
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"'{found}' cannot be made ({error.strerror}); set XDG_CACHE_HOME to a folder that can be written") from error
    return found
