"""The paper's results (arXiv 2604.28123, project page), so that a run can be put beside them: `paper_results.csv`, in percent.

Single sampled runs at temperature 1.0 without intervals, judged with the help of a model that saw whole outputs; which of several scores
stands for MathVista, We-Math, MMMU-Pro and HallusionBench is not said there. So they are neighbours, not a baseline to test against.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from prism_trainer.contract.configs import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)
"""In the order of the paper's columns."""
TITLES: dict[str, str] = {
    "mathvista": "MathVista",
    "mathverse": "MathVerse",
    "mathvision": "MathVision",
    "wemath": "We-Math",
    "mmmu": "MMMU",
    "mmmu-pro": "MMMU-Pro",
    "hallusionbench": "HallusionBench",
}


class PaperRow(BaseModel):
    """One model of the paper, scores in percent by benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Literal["main", "ablation"]
    size: Literal["4B", "8B"]
    model: str
    scores: dict[Benchmark, float]
    average: float


@cache
def paper_results() -> tuple[PaperRow, ...]:
    """All rows, in the paper's order."""
    text = resources.files(__package__).joinpath("paper_results.csv").read_text()
    return tuple(_row(line) for line in csv.DictReader(text.splitlines()))


def _row(line: dict[str, str]) -> PaperRow:
    scores = {name: line.pop(name) for name in BENCHMARKS}
    return PaperRow.model_validate({**line, "scores": scores})
