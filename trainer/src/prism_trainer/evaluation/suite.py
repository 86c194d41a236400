"""What a stage `evaluation` asks: its own data and the benchmarks it names, each a set of problems that can be read again and again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.results import HELD_OUT
from prism_trainer.data.dataset import Rows, require_no_weights
from prism_trainer.data.readers import verifiable_prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.errors import DataError
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.scores import ACCURACY, Scorer, shares
from prism_trainer.evaluation.sources import find_sources
from prism_trainer.evaluation.task import Task
from prism_trainer.evaluation.tasks import TASKS
from prism_trainer.hub.fetching import Waiting, patiently


@dataclass(frozen=True)
class ProblemSet:
    """A benchmark, or the stage's own data where `task` is none."""

    name: str
    sources: tuple[DataSource, ...]
    task: Task | None = None

    @property
    def scores(self) -> Scorer:
        return self.task.scores if self.task else shares

    @property
    def column(self) -> str:
        return self.task.column if self.task else ACCURACY

    @cached_property
    def problems(self) -> Rows[Problem]:
        """Read when they are asked for: the images of all seven benchmarks fill gigabytes."""
        return Rows(self.sources, self.task.read if self.task else _own)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """In the order of the files; looks at every row. Two problems of one id would be one to all that follows, so they are refused."""
        ids: dict[str, None] = {}
        for problem in self.problems:
            if problem.prompt.id in ids:
                raise DataError(f"benchmark '{self.name}' has two problems '{problem.prompt.id}'; give each file once")
            ids[problem.prompt.id] = None
        return tuple(ids)


def open_suite(job: StageJob, config: EvaluationConfig, waiting: Waiting = patiently) -> tuple[ProblemSet, ...]:
    """Every set, looked at once, so that a wrong row is told before anything is drawn; `waiting` is called while one is fetched."""
    require_no_weights(job.data, job.stage)
    sets = [ProblemSet(HELD_OUT, job.data)] if job.data else []
    sets += [ProblemSet(one.name, find_sources(one, TASKS[one.name], waiting), task=TASKS[one.name]) for one in config.benchmarks]
    return tuple(one for one in sets if one.ids)


def _own(row: RawRow) -> Problem:
    verifiable = verifiable_prompt(row)
    return Problem(verifiable.prompt, verifiable.references, verifiable.prompt.id)
