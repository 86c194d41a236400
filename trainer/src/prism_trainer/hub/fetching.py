"""The caller's side: start the process that fetches, wait for it, and make its last words an error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prism_trainer.errors import DataError, ModelError, UnreachableError
from prism_trainer.hub.wanted import KINDS, UNREACHABLE

COMMAND = (sys.executable, "-m", "prism_trainer.hub")
LOOK_SECONDS = 1.0
Waiting = Callable[[], None]
"""Called while something is fetched; raising in it ends that."""


def patiently() -> None:
    """For a fetch that nobody ends."""


def fetch(
    kind: str,
    repository: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    cache: Path | None = None,
    waiting: Waiting = patiently,
    command: Sequence[str] = COMMAND,
    env: Mapping[str, str] | None = None,
) -> Path:
    """The folder of the snapshot. UnreachableError where the same may go well later; else ModelError for a model, DataError for data."""
    asked = [*command, kind, repository, revision or "", str(cache or ""), *patterns]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(asked, stdin=subprocess.DEVNULL, stdout=output, stderr=complaints, env=env, start_new_session=True)
        try:
            code = _wait(child, waiting)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        lines, said = ([line.strip() for line in (file.seek(0), file)[1] if line.strip()] for file in (output, complaints))
    if code == 0 and lines:
        return Path(lines[-1])
    sentence = said[-1] if said else f"{KINDS[kind].noun} '{repository}' could not be fetched from the hub; look at the log"
    if code == UNREACHABLE:
        raise UnreachableError(sentence)
    raise ModelError(sentence) if kind == "model" else DataError(sentence)


def _wait(child: subprocess.Popen[bytes], waiting: Waiting) -> int:
    while True:
        try:
            return child.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            waiting()
