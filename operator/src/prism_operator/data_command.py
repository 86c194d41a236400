"""`prism data`: the trainer does the work, in a process of its own on the same terminal."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Sequence

NEEDS = ("numpy", "PIL", "pyarrow")


def run_data(command: str, arguments: Sequence[str]) -> int:
    """Its exit code. Ctrl-C reaches both; it saves what it has, and this process waits for that."""
    for package in NEEDS:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    process = subprocess.Popen([sys.executable, "-m", "prism_trainer.curation", command, *arguments])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
