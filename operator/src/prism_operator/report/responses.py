"""Picks evaluated responses to show side by side: the same prompt and seed, answered by the policy of each stage.

The choice is by rule, so that nobody can pick the pretty ones: the first few of each turn (became right, became wrong, stayed), in
the order in which they were evaluated. How often each turn happened is counted over all of them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prism_trainer.contract.results import EvaluationSample

SHOWN = {"became right": 3, "became wrong": 1, "stayed right": 1, "stayed wrong": 1}
TAG = re.compile(r"(</?(?:caption|think|answer)>)")


@dataclass(frozen=True)
class Comparison:
    """One prompt with one seed: what each policy answered, and whether the answer turned right or wrong on the main line."""

    samples: tuple[EvaluationSample, ...]
    turn: str

    @property
    def prompt(self) -> EvaluationSample:
        return self.samples[0]


@dataclass(frozen=True)
class Responses:
    """What is shown, and how it stands to all that could be."""

    first: str
    last: str
    shown: tuple[Comparison, ...]
    turns: tuple[tuple[str, int], ...]

    @property
    def compared(self) -> int:
        return sum(count for _, count in self.turns)


def compare(samples: Iterable[EvaluationSample], stages: Sequence[str], main_line: Sequence[str]) -> Responses | None:
    """`stages` are the columns; `main_line` says between which of them answers turn. Prompts that a column lacks are left out."""
    answered: dict[tuple[str, int], dict[str, EvaluationSample]] = defaultdict(dict)
    for sample in samples:
        answered[sample.prompt_id, sample.seed][sample.stage] = sample
    present = {stage for by_stage in answered.values() for stage in by_stage}
    columns, line = [[stage for stage in names if stage in present] for names in (stages, main_line)]
    if not line:
        return None
    whole = [
        Comparison(tuple(by_stage[stage] for stage in columns), _turn(by_stage[line[0]], by_stage[line[-1]]))
        for by_stage in answered.values()
        if all(stage in by_stage for stage in columns)
    ]
    counts = Counter(comparison.turn for comparison in whole)
    return Responses(line[0], line[-1], tuple(_choose(whole)), tuple((turn, counts[turn]) for turn in SHOWN))


def _turn(before: EvaluationSample, after: EvaluationSample) -> str:
    how = "stayed" if before.correct == after.correct else "became"
    return f"{how} {'right' if after.correct else 'wrong'}"


def _choose(comparisons: Sequence[Comparison]) -> Iterable[Comparison]:
    """Each prompt at most once, whatever the number of seeds."""
    used: set[str] = set()
    for turn, wanted in SHOWN.items():
        for comparison in comparisons:
            if wanted and comparison.turn == turn and comparison.prompt.prompt_id not in used:
                used.add(comparison.prompt.prompt_id)
                wanted -= 1
                yield comparison


def split_tags(response: str) -> list[tuple[bool, str]]:
    """(whether it is a tag of the form, text), so that the page can set the tags apart."""
    return [(bool(TAG.fullmatch(part)), part) for part in TAG.split(response) if part]
