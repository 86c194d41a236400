"""The facts about this machine that decide what can run on it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prism_operator.local.first_rows import ReadFirstRows, ask_trainer
from prism_operator.local.interpreters import Interpreters, interpreter_of


@dataclass(frozen=True)
class Machine:
    """What the refusals depend on."""

    cwd: Path
    """Where relative paths start."""
    num_gpus: Callable[[], int]
    """Asked only when a run wants GPUs."""
    interpreter: Interpreters = interpreter_of
    """Asked only for stages of engine verl."""
    read_first_rows: ReadFirstRows = lambda sets: ()
    """Asked once, of a run that is otherwise sound."""


def this_machine() -> Machine:
    """Relative paths start at the current directory, as for any command."""
    return Machine(cwd=Path.cwd(), num_gpus=count_gpus, read_first_rows=ask_trainer)


@cache
def count_gpus() -> int:
    """NVIDIA GPUs, by the driver's own tool, else by the device files."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        try:
            listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
            return sum(line.startswith("GPU ") for line in listing.splitlines())
        except (OSError, subprocess.SubprocessError):
            pass
    return sum(bool(re.fullmatch(r"nvidia[0-9]+", path.name)) for path in Path("/dev").glob("nvidia*"))
