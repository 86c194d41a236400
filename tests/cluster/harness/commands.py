"""Runs a command to its end; a failure is one error that carries the command's own words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep


class CommandFailed(Exception):  # noqa: N818  (what happened, as `subprocess.TimeoutExpired`)
    """A command that ended with another status than 0, with its output."""


def run(
    argv: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> str:
    """Standard output. `env` is added to this process's own. Raises `CommandFailed`, or `TimeoutExpired` after `timeout` seconds."""
    data = input.encode() if isinstance(input, str) else input
    done = subprocess.run(
        [str(part) for part in argv],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=timeout,
    )
    stdout = done.stdout.decode(errors="replace")
    if check and done.returncode != 0:
        words = _both_ends(done.stderr.decode(errors="replace").strip() or stdout.strip())
        raise CommandFailed(f"{' '.join(str(part) for part in argv[:6])} ... ended with status {done.returncode}: {words}")
    return stdout


def wait_until(true: Callable[[], bool], what: str, *, seconds: float, every: float = 0.2) -> None:
    """Asks until the answer is yes. Raises `TimeoutError`, saying what did not come true."""
    deadline = monotonic() + seconds
    while not true():
        if monotonic() > deadline:
            raise TimeoutError(f"{what}: not so after {seconds:.0f} s.")
        sleep(every)


def _both_ends(text: str, length: int = 2000) -> str:
    return text if len(text) <= 2 * length else f"{text[:length]}\n...\n{text[-length:]}"
