"""Every problem of a file at once: YAML, schema, plan, and what this machine, or a cluster, does not carry out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism_operator.api import PrismRun
from prism_operator.errors import BadRunError
from prism_operator.local.first_rows import first_row_problems
from prism_operator.local.machine import Machine
from prism_operator.local.survey import survey
from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems
from prism_operator.problems import Problem
from prism_operator.source import Source, read_source

Survey = Callable[[PrismRun], Sequence[Problem]]
"""What one executor does not carry out."""


@dataclass(frozen=True)
class Validated:
    """A file, read as far as it can be."""

    file: Path
    text: str
    source: Source
    run: PrismRun | None
    problems: tuple[Problem, ...]

    @property
    def raw(self) -> dict[str, Any]:
        """The object as it stands in the file."""
        return dict(self.source.raw)

    def and_also(self, problems: Iterable[Problem]) -> Validated:
        """With what somebody else found."""
        return replace(self, problems=(*self.problems, *problems))

    def lines(self) -> list[str]:
        """`file:line: path: sentence`, in the order of the file."""
        numbered = [(self.source.line_of(problem.path) or 0, problem) for problem in self.problems]
        numbered.sort(key=lambda pair: pair[0])
        return [f"{self.file}{f':{line}' if line else ''}: {problem}" for line, problem in numbered]


def validate_file(file: Path, machine: Machine | None) -> Validated:
    """For `prism run` on a machine; without one, only what holds for every executor."""
    return check_file(file, machine_survey(machine) if machine else None)


def check_file(file: Path, executor: Survey | None) -> Validated:
    """For any executor."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return Validated(file, "", Source(), None, (Problem((), f"cannot be read: {reason}"),))
    source = read_source(text)
    if not isinstance(source.raw, dict):
        return Validated(file, text, source, None, source.problems)
    parsed = parse_run(source.raw)
    problems = [*source.problems, *parsed.problems]
    if parsed.run is not None:
        later = [*plan_problems(parsed.run), *(executor(parsed.run) if executor else ())]
        problems += [problem for problem in later if not parsed.concerns(problem.path)]
    return Validated(file, text, source, parsed.run, tuple(problems))


def machine_survey(machine: Machine) -> Survey:
    """Of `prism run`."""

    def problems(run: PrismRun) -> tuple[Problem, ...]:
        try:
            survey(run, machine.cwd, machine)
        except BadRunError as refusal:
            return refusal.problems
        return tuple(first_row_problems(run, machine.cwd, machine.read_first_rows))

    return problems
