"""Group-relative advantages. A group is the `n` responses to one prompt; rows are prompts.

Shapes: P prompts, N responses each. Scores are (P, N) float, validity is (P, N) bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6


def group_normalise(scores_PN: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-6) within each row, with the unbiased standard deviation (DeepSeekMath's GRPO, as in verl).

    A group of one or of equal scores has nothing to compare and gets exactly 0: the rounding error of its mean would not be.
    """
    if scores_PN.shape[1] < 2:
        return torch.zeros_like(scores_PN)
    centred = scores_PN - scores_PN.mean(dim=1, keepdim=True)
    normalised = centred / (scores_PN.std(dim=1, keepdim=True) + EPSILON)
    all_equal = scores_PN.amax(dim=1, keepdim=True) == scores_PN.amin(dim=1, keepdim=True)
    return torch.where(all_equal, torch.zeros_like(normalised), normalised)


def substitute_invalid(scores_PN: Tensor, valid_PN: Tensor) -> Tensor:
    """Invalid responses get one point less than the worst valid one of their group; -1 where the whole group is invalid."""
    worst = scores_PN.masked_fill(~valid_PN, torch.inf).amin(dim=1, keepdim=True)
    floor = torch.where(worst.isinf(), torch.full_like(worst, -1.0), worst - 1.0)
    return torch.where(valid_PN, scores_PN, floor)


def alignment_advantages(
    caption_PN: Tensor, cot_PN: Tensor, valid_PN: Tensor, *, alpha: float, format_penalty: float, order: str
) -> Tensor:
    """PRISM's stage 2 advantage, (P, N).

    `normalise-then-combine` (upstream's core_algos, `grpo_multi_reward`):  a GN(caption) + (1 - a) GN(cot) - penalty * invalid
    `combine-then-normalise` (the paper's equations 1 and 3):               GN(a caption + (1 - a) cot) - penalty * invalid

    Different from upstream: a group without a single valid response gets 0 instead of -penalty (defect A9), because nothing in it is
    better than anything else and a pure push-down only spreads probability to nowhere in particular.
    """
    caption = substitute_invalid(caption_PN, valid_PN)
    cot = substitute_invalid(cot_PN, valid_PN)
    if order == "normalise-then-combine":
        combined = alpha * group_normalise(caption) + (1 - alpha) * group_normalise(cot)
    else:
        combined = group_normalise(alpha * caption + (1 - alpha) * cot)
    advantages = combined - format_penalty * (~valid_PN).to(combined.dtype)
    return torch.where(valid_PN.any(dim=1, keepdim=True), advantages, torch.zeros_like(advantages))
