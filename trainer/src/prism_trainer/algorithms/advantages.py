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


def combine_components(caption_PN: Tensor, cot_PN: Tensor, valid_PN: Tensor, *, alpha: float, order: str) -> Tensor:
    """A_align (P, N), what both scores of a response come to within its group.

    `normalise-then-combine` (upstream's core_algos, `grpo_multi_reward`):  a GN(caption) + (1 - a) GN(cot)
    `combine-then-normalise` (the paper's equations 1 and 3):               GN(a caption + (1 - a) cot)
    """
    caption = substitute_invalid(caption_PN, valid_PN)
    cot = substitute_invalid(cot_PN, valid_PN)
    if order == "normalise-then-combine":
        return alpha * group_normalise(caption) + (1 - alpha) * group_normalise(cot)
    return group_normalise(alpha * caption + (1 - alpha) * cot)


def alignment_advantages(
    caption_PN: Tensor, cot_PN: Tensor, valid_PN: Tensor, *, alpha: float, format_penalty: float, order: str
) -> Tensor:
    """PRISM's stage 2 advantage without a verifiable reward, (P, N): A_align - penalty * invalid.

    Different from upstream: see `spare_hopeless_groups`. The modes that add a verifiable reward are in `reward_modes`.
    """
    aligned = combine_components(caption_PN, cot_PN, valid_PN, alpha=alpha, order=order)
    return spare_hopeless_groups(aligned - format_penalty * (~valid_PN).to(aligned.dtype), valid_PN)


def spare_hopeless_groups(advantages_PN: Tensor, valid_PN: Tensor) -> Tensor:
    """A group without a single valid response gets 0.

    Upstream gives all of it -penalty (defect A9); nothing in it is better than anything else, and a pure push-down only spreads
    probability to nowhere in particular.
    """
    return torch.where(valid_PN.any(dim=1, keepdim=True), advantages_PN, torch.zeros_like(advantages_PN))
