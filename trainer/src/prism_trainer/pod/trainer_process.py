"""The trainer: a child in a session of its own, whose output goes to the container's log and to the attempt's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from prism_trainer.contract.report import PARENT_PID

TAIL_BYTES = 4096
PUMP_SECONDS = 5.0
"""For the last output after everybody who could write is dead."""


class TrainerProcess:
    """Started when made."""

    def __init__(self, command: Sequence[str], job_file: Path, log_file: Path) -> None:
        self._log_file = log_file
        self._child = subprocess.Popen(
            [*command, str(job_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, PARENT_PID: str(os.getpid())},
        )
        self._tail = b""
        assert self._child.stdout is not None
        self._pump = threading.Thread(target=self._copy, args=(self._child.stdout,), name="log", daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        """Also its session."""
        return self._child.pid

    def has_ended(self) -> bool:
        """Without reaping it: until then nobody else gets its pid, and its session can be swept safely."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ask_to_stop(self) -> None:
        """SIGTERM to the trainer alone: it decides what its children finish."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the trainer and all it left in its session."""
        for member in _members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)

    def bury(self) -> int:
        """After its end: nothing of it lives on, all it said is in the logs. Its exit code, negative for a signal."""
        self.kill()
        code = self._child.wait()
        self._pump.join(PUMP_SECONDS)
        return code

    def last_line(self, limit: int = 300) -> str:
        """Of its output, as far as it says something."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines()]
        return next((line[-limit:] for line in reversed(lines) if line), "")

    def last_words(self) -> str:
        """The end of its output, as far as it is kept."""
        return self._tail.decode(errors="replace")

    def _copy(self, output: IO[bytes]) -> None:
        """A log that cannot be written must not stop the trainer: it is read to its end all the same."""
        with contextlib.suppress(OSError, ValueError), output:
            while chunk := os.read(output.fileno(), 65536):
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
                with contextlib.suppress(OSError), self._log_file.open("ab") as log:
                    log.write(chunk)


def _members(session: int) -> Iterator[int]:
    """From /proc: the container always has it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry.name)) == session:
                    yield int(entry.name)
