"""Files of a run folder: written whole or not at all, read as far as they are sound."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from prism_operator.errors import RunFolderError
from prism_trainer.contract.schema import Frozen

STATUS = "status.json"
SPEC = "prismrun.yaml"
JOB = "job.json"
PROCESS = "process.json"
STOP = "stop.json"
LOG = "log.txt"
LOCK = ".lock"

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Ray's, before every line of a worker."""

Value = TypeVar("Value", bound=Frozen)


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old text or the new one, never a part. The folder's lock leaves one writer, so one draft."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RunFolderError(unwritable(path, error)) from error


def make_folder(path: Path) -> None:
    """With its parents; it may be there already."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(unwritable(path, error)) from error


def write_value(path: Path, value: Frozen) -> None:
    """As camelCase JSON."""
    write_atomically(path, value.model_dump_json(indent=2, exclude_none=True))


def read_value(path: Path, kind: type[Value]) -> Value | None:
    """None for a file that is missing or damaged: whoever wrote it may have been killed."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError):
        return None


def unwritable(path: Path, error: OSError) -> str:
    """The sentence for a full or read-only disk."""
    return (
        f"cannot write {path}: {error.strerror or error}. Free space or give another spec.storage.local.path, then run again: "
        "committed checkpoints are safe, and it goes on from the last one."
    )


def last_words(path: Path, limit: int = 300) -> str:
    """The last line of a log that says something, without colours, at most `limit` characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = [line.strip() for line in _COLOUR.sub("", file.read().decode(errors="replace")).splitlines()]
    except OSError:
        return ""
    return next((line[-limit:] for line in reversed(lines) if line), "")
