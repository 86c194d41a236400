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
    """One prompt with one seed, answered by each policy in order."""

    samples: tuple[EvaluationSample, ...]

    @property
    def prompt(self) -> EvaluationSample:
        return self.samples[0]

    @property
    def turn(self) -> str:
        before, after = self.samples[0].correct, self.samples[-1].correct
        if before == after:
            return "stayed right" if after else "stayed wrong"
        return "became right" if after else "became wrong"


@dataclass(frozen=True)
class Responses:
    """What is shown, and how it stands to all that could be."""

    stages: tuple[str, ...]
    shown: tuple[Comparison, ...]
    turns: tuple[tuple[str, int], ...]

    @property
    def compared(self) -> int:
        return sum(count for _, count in self.turns)


def compare(samples: Iterable[EvaluationSample], stages: Sequence[str]) -> Responses:
    """`stages` in the order of the columns; prompts that one of them did not answer are left out."""
    answered: dict[tuple[str, int], dict[str, EvaluationSample]] = defaultdict(dict)
    for sample in samples:
        if sample.stage in stages:
            answered[sample.prompt_id, sample.seed][sample.stage] = sample
    columns = [stage for stage in stages if any(stage in by_stage for by_stage in answered.values())]
    whole = [
        Comparison(tuple(by_stage[stage] for stage in columns)) for by_stage in answered.values() if all(stage in by_stage for stage in columns)
    ]
    counts = Counter(comparison.turn for comparison in whole)
    return Responses(tuple(columns), tuple(_choose(whole)), tuple((turn, counts[turn]) for turn in SHOWN))


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
