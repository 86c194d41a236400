"""Which Python of this machine carries a stage out: the libraries of engine verl exclude each other, so each set has one of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from prism_trainer.contract.environments import LIBRARY, Environment

VARIABLE: dict[Environment, str] = {"sft": "PRISM_PYTHON_SFT", "rl": "PRISM_PYTHON_RL", "eval": "PRISM_PYTHON_EVAL"}
"""Each names a Python, for where this one has not the library."""
ASK_SECONDS = 60.0


@dataclass(frozen=True)
class Interpreter:
    """A Python, and why it cannot do it, if so: a sentence."""

    python: str
    lack: str = ""


Interpreters = Callable[[Environment], Interpreter]


@cache
def interpreter_of(environment: Environment) -> Interpreter:
    """The one that is named, else this one."""
    if environment == "cpu":
        return Interpreter(sys.executable)
    module, library = LIBRARY[environment]
    variable = VARIABLE[environment]
    named = os.environ.get(variable)
    if named:
        return Interpreter(named, _lack_of(named, module, library, variable))
    if importlib.util.find_spec(module) is not None:
        return Interpreter(sys.executable)
    sentence = f"engine 'verl' does it with {library}, which this Python ({sys.executable}) has not"
    return Interpreter(sys.executable, f"{sentence}; name one that has it in {variable}, or take engine 'local'")


def _lack_of(python: str, module: str, library: str, variable: str) -> str:
    if shutil.which(python) is None:
        return f"{variable} names '{python}', which is no program; correct it"
    question = f"import importlib.util as i; print(*(m for m in ('{module}', 'prism_trainer') if i.find_spec(m) is None))"
    try:
        asked = subprocess.run([python, "-c", question], capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{variable} names '{python}', which does not run as a Python ({error}); correct it"
    missing = {module: library, "prism_trainer": "prism-trainer"}
    found = [missing[name] for name in asked.stdout.split()]
    return f"{variable} names '{python}', which has no {' and no '.join(found)}; install it there, or name another" if found else ""
