"""DAPO's two measures beside its loss (Yu et al. 2025): which groups teach, and what a response close to the length limit loses."""

from __future__ import annotations

from torch import Tensor


def mixed_groups(correct_PN: Tensor) -> Tensor:
    """Groups (P,) with right and wrong answers in them; in all others the accuracy has no spread, and the advantage no direction.

    As upstream's `filter_groups` on `acc_reward`: not on the reward, which the format and the length move too.
    """
    return correct_PN.any(dim=1) & ~correct_PN.all(dim=1)


def overlong_penalty(lengths_R: Tensor, *, max_tokens: int, buffer_tokens: int, factor: float) -> Tensor:
    """Added to the reward (R,): 0 up to `max_tokens - buffer_tokens`, then falling linearly to -factor at `max_tokens`.

    The paper's script has a buffer of 4096 in 8192, so the penalty starts at half the budget.
    """
    over = (lengths_R - (max_tokens - buffer_tokens)).clamp(min=0) / buffer_tokens
    return -factor * over.clamp(max=1.0)
