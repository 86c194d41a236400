"""Whether the nodes see each other's files: each writes one, as checkpoints are written, and each reads all."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

LOOK_SECONDS = 0.5


def write_own(folder: str, name: str) -> str:
    """Written beside its name, made durable, renamed. Why it could not be, or nothing."""
    target = Path(folder) / name
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w") as file:
            file.write(content_of(name))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        return str(error)
    return ""


def content_of(name: str) -> str:
    """Long enough to need more than a directory entry."""
    return f"{name}\n" * 1000


def wait_for_all(folder: str, names: Sequence[str], seconds: float) -> tuple[str, ...]:
    """Of `names`, those whose whole content was not seen in time."""
    end = time.monotonic() + seconds
    unseen = list(names)
    while unseen:
        unseen = [name for name in unseen if not _is_seen(Path(folder) / name, content_of(name))]
        if time.monotonic() >= end:
            break
        if unseen:
            time.sleep(LOOK_SECONDS)
    return tuple(unseen)


def _is_seen(file: Path, content: str) -> bool:
    try:
        list(file.parent.iterdir())  # a client of NFS asks the server again
        return file.read_text() == content
    except OSError:
        return False
