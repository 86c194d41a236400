"""The process of an attempt: started in a session of its own, known by pid and creation time, ended with all its children.

Every question is asked of the machine and of `process.json`, so that the answers survive the runner that started the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import Field

from prism_trainer.contract.report import PARENT_PID
from prism_trainer.contract.schema import Frozen


class ProcessRecord(Frozen):
    """`process.json`."""

    pid: int = Field(description="Also its process group and session.")
    create_time: float = Field(description="Seconds since the epoch; pids are used again.")
    started_at: str = Field(description="UTC, RFC 3339.")
    ended_at: str | None = Field(None, description="When its end was noticed.")
    exit_code: int | None = Field(None, description="Negative: killed by that signal. None: not known.")


def spawn(command: Sequence[str], job_file: Path, log_file: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a Ctrl-C in the terminal reaches only the runner."""
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [*command, str(job_file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **env, PARENT_PID: str(os.getpid())},
        )


def create_time(pid: int) -> float:
    """Of a process that lives; 0 for one that is gone already."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def is_alive(record: ProcessRecord, job_file: Path) -> bool:
    """Whether that very process lives. The command line vouches for it where the clock was set and creation times moved."""
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - record.create_time) < 1.0 or str(job_file) in process.cmdline()
    except psutil.Error:
        return False


def find(job_file: Path) -> int | None:
    """The process that was started with this job file, for a runner that died before it could write the pid down."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(job_file) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                return int(process.pid)
    return None


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it: until then nobody else gets its pid, and its session can be swept safely."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def ask_to_stop(pid: int) -> None:
    """SIGTERM to the stage's first process alone: it decides what its children finish."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def kill_session(pid: int) -> None:
    """SIGKILL to the process and whatever it left in its session."""
    for member in _members(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def _members(session: int) -> Iterator[int]:
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == session:
                yield pid
