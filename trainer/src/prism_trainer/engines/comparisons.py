"""The discriminator's comparisons of teacher and student, caption against caption and cot against cot: loss of some, accuracy on others.

What the warm-up is made of, on one device (`stages.discriminator`) and on many (`engines.deepspeed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.discriminator.losses import bradley_terry, pair_accuracy
from prism_trainer.engines.local.pairs import Pair
from prism_trainer.engines.local.scoring import Scorer, Scores


@dataclass(frozen=True)
class Comparison:
    """Of some pairs: Bradley-Terry's mean loss, the router's load-balancing loss, and how often the teacher is above the student."""

    loss: Tensor
    balance: Tensor
    accuracy: float

    def total(self, config: DiscriminatorConfig) -> Tensor:
        return self.loss + config.balance_coef * self.balance


def compare(scorer: Scorer, pairs: Sequence[Pair]) -> Comparison:
    """With gradient."""
    teacher, student = score_pairs(scorer, pairs)
    margins = torch.cat([teacher.caption_R - student.caption_R, teacher.cot_R - student.cot_R])
    return Comparison(bradley_terry(margins, torch.zeros_like(margins)).mean(), student.balance, pair_accuracy(margins))


def score_pairs(scorer: Scorer, pairs: Sequence[Pair]) -> tuple[Scores, Scores]:
    """Teacher's and student's scores from one pass over the prompts; the balance is that of the whole pass."""
    count = len(pairs)
    prompts = scorer.collate([pair.taught.prompt for pair in pairs])
    responses = [*(pair.taught.teacher for pair in pairs), *(pair.student for pair in pairs)]
    both = scorer.score(prompts, [*range(count), *range(count)], responses)
    return both.rows(slice(count)), both.rows(slice(count, None))


def measure_pairs(scorer: Scorer, pairs: Sequence[Pair], size: int) -> dict[str, float]:
    """Accuracy (teacher above student) and mean gap on pairs whose prompts were not trained on."""
    return gap_metrics(pair_gaps(scorer, pairs, size))


@torch.no_grad()
def pair_gaps(scorer: Scorer, pairs: Sequence[Pair], size: int) -> dict[str, Tensor]:
    """Teacher's score less the student's, (P,) on the CPU, of captions and cots."""
    scorer.model.eval()
    gaps: dict[str, list[Tensor]] = {"caption": [], "cot": []}
    for start in range(0, len(pairs), size):
        teacher, student = score_pairs(scorer, pairs[start : start + size])
        gaps["caption"].append(teacher.caption_R - student.caption_R)
        gaps["cot"].append(teacher.cot_R - student.cot_R)
    return {name: torch.cat(parts).cpu() if parts else torch.zeros(0) for name, parts in gaps.items()}


def gap_metrics(gaps: Mapping[str, Tensor]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, gap in gaps.items():
        metrics[f"held_out/{name}_acc"] = pair_accuracy(gap)
        metrics[f"held_out/{name}_gap"] = gap.mean().item()
    metrics["held_out/acc"] = (metrics["held_out/caption_acc"] + metrics["held_out/cot_acc"]) / 2
    metrics["held_out/gap"] = (metrics["held_out/caption_gap"] + metrics["held_out/cot_gap"]) / 2
    return metrics
