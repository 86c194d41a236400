"""Scores as ratios: each unit of a benchmark gives a numerator and a denominator to every score, and a score is sum over sum.

So one bootstrap serves accuracies, accuracies of a subset, all-or-nothing scores of a group and rates of a rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from prism_trainer.contract.results import EvaluationSample

Ratio = tuple[float, float]
Scorer = Callable[[Sequence[EvaluationSample]], Mapping[str, Ratio]]
"""From the answers to all prompts of one unit, drawn with one seed, to what they give to each score."""
ACCURACY = "accuracy"


def shares(samples: Sequence[EvaluationSample]) -> dict[str, Ratio]:
    """Accuracy over all prompts, and over those with each value of each label."""
    found: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        found[ACCURACY].append(sample.correct)
        for label, value in sample.labels.items():
            if not label.startswith("_"):
                found[f"{label}/{value}"].append(sample.correct)
    return {name: (float(sum(right)), float(len(right))) for name, right in found.items()}


def all_right(samples: Iterable[EvaluationSample], key: Callable[[EvaluationSample], str]) -> Ratio:
    """How many groups, of samples with one key, are right throughout, and how many there are."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample.correct)
    return float(sum(all(right) for right in groups.values())), float(len(groups))
