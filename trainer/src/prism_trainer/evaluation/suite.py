"""What a stage `evaluation` asks: its own data and the benchmarks it names, each a set of problems that can be read again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.results import HELD_OUT
from prism_trainer.data.dataset import require_no_weights
from prism_trainer.data.readers import read_verifiable
from prism_trainer.data.sources import read_raw
from prism_trainer.errors import DataError
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.scores import ACCURACY, Scorer, shares
from prism_trainer.evaluation.sources import find_sources
from prism_trainer.evaluation.task import Task
from prism_trainer.evaluation.tasks import TASKS


@dataclass(frozen=True)
class ProblemSet:
    """A benchmark, or the stage's own data where `task` is none. Read anew for each checkpoint: images of all seven fill gigabytes."""

    name: str
    sources: tuple[DataSource, ...]
    ids: tuple[str, ...] = ()
    task: Task | None = None

    @property
    def scores(self) -> Scorer:
        return self.task.scores if self.task else shares

    @property
    def column(self) -> str:
        return self.task.column if self.task else ACCURACY

    def read(self) -> list[Problem]:
        """In the order of the files; two problems of one id would be one to all that follows, so they are refused."""
        seen: set[str] = set()
        problems = []
        for problem in self._problems():
            if problem.prompt.id in seen:
                raise DataError(f"benchmark '{self.name}' has two problems '{problem.prompt.id}'; give each file once")
            seen.add(problem.prompt.id)
            problems.append(problem)
        return problems

    def _problems(self) -> Iterator[Problem]:
        if self.task is None:
            for row in (row for source in self.sources for row in read_verifiable(source)):
                yield Problem(row.prompt, row.references, row.prompt.id)
            return
        for source in self.sources:
            yield from (self.task.read(row) for row in read_raw(source))


def open_suite(job: StageJob, config: EvaluationConfig) -> tuple[ProblemSet, ...]:
    """Every set, read once: what is wrong with a row is told before the first response is drawn."""
    require_no_weights(job.data, job.stage)
    sets = [ProblemSet(HELD_OUT, job.data)] if job.data else []
    sets += [ProblemSet(one.name, find_sources(one, TASKS[one.name]), task=TASKS[one.name]) for one in config.benchmarks]
    return tuple(ProblemSet(one.name, one.sources, tuple(problem.prompt.id for problem in one.read()), one.task) for one in sets)
