"""What a benchmark is: where its data is published, how a row becomes a problem, and which of its scores is its column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prism_trainer.contract.configs import Benchmark
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.scores import ACCURACY, Scorer, shares


@dataclass(frozen=True)
class Task:
    """`splits` gives the files of each split, as patterns below the data set's folder and without suffix; the first split is the default.

    `column` is the score that stands for the benchmark in a table. The paper does not say which it took where there are several: each
    module says which one is taken here, and why.
    """

    name: Benchmark
    dataset: str
    splits: Mapping[str, tuple[str, ...]]
    read: Callable[[RawRow], Problem]
    scores: Scorer = shares
    column: str = ACCURACY

    @property
    def default_split(self) -> str:
        return next(iter(self.splits))
