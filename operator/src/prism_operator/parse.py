"""Plain values to a PrismRun, or to every problem the schema finds, as sentences.

pydantic stops at the first layer of problems: a class with a wrong field is not checked as a whole. So what is wrong is cut out and
the rest is checked again, until it holds. What remains also goes to the planner, so that its problems are reported in the same pass.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.problems import Path, Problem
from prism_operator.schema_problems import follows, problem_of

_MAX_PASSES = 5


@dataclass(frozen=True)
class Parsed:
    """`run` is all that holds, with defaults in place of what does not; it may only be carried out when there are no problems."""

    run: PrismRun | None
    problems: tuple[Problem, ...] = ()

    def concerns(self, path: Path) -> bool:
        """Whether a later problem at `path` may only follow from one that is known."""
        return any(path[: len(problem.path)] == problem.path for problem in self.problems)


def parse_run(raw: dict[str, Any]) -> Parsed:
    """`status` is left out: it is ours, and read on its own."""
    value = copy.deepcopy({key: item for key, item in raw.items() if key != "status"})
    problems: dict[Path, Problem] = {}
    for _ in range(_MAX_PASSES):
        try:
            run = PrismRun.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            found = [problem_of(details, raw) for details in error.errors(include_url=False) if not follows(details)]
            problems = {problem.path: problem for problem in found} | problems
            cut = [_cut(value, problem.path) for problem in found]
            if not all(cut):
                break
        else:
            return Parsed(run, _sorted(problems))
    return Parsed(None, _sorted(problems))


def read_status(document: dict[str, Any] | None) -> PrismRunStatus | None:
    """The status of an object, as far as it is understood: one that another version wrote must not stop a run."""
    try:
        return PrismRunStatus.model_validate(document["status"]) if document and document.get("status") else None
    except ValidationError:
        return None


def _cut(value: Any, path: Path) -> bool:
    """Remove what stands at `path`; list items stay, as those after them would change their numbers."""
    if not path or isinstance(path[-1], int):
        return False
    for part in path[:-1]:
        if isinstance(value, dict) and part not in value:
            return False
        value = value[part]
    return isinstance(value, dict) and value.pop(path[-1], _ABSENT) is not _ABSENT


_ABSENT = object()


def _sorted(problems: dict[Path, Problem]) -> tuple[Problem, ...]:
    """In the order of the fields, list items by number."""
    return tuple(problems[path] for path in sorted(problems, key=lambda path: [(isinstance(part, int), part) for part in path]))
