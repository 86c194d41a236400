"""Short-lived children whose last line of output is an answer: what they import stays out of the supervisor, and they can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from prism_trainer.pod.stop import Stop

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Answer:
    """How a child ended; `exit_code` is None for one that took too long and was killed."""

    exit_code: int | None
    line: str
    complaint: str
    """Last line of its stderr."""
    lines: tuple[str, ...] = ()
    """All of its output, less empty lines."""


def ask(command: Sequence[str], timeout: float, stop: Stop) -> Answer:
    """Run it to its end. When asked to stop, Stopped, and the child is gone."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
        try:
            code = _wait(child, timeout, stop)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        lines, complaints = _lines(output), _lines(errors)
        return Answer(code, lines[-1] if lines else "", complaints[-1] if complaints else "", lines)


def _wait(child: subprocess.Popen[bytes], timeout: float, stop: Stop) -> int | None:
    end = time.monotonic() + timeout
    while child.poll() is None:
        if time.monotonic() >= end:
            return None
        stop.pause(LOOK_SECONDS)
    return child.returncode


def _lines(file: IO[bytes]) -> tuple[str, ...]:
    file.seek(0)
    return tuple(line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip())
