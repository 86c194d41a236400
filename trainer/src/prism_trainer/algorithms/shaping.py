"""What stage 3 trains on; with DAPO's two measures beside its loss (Yu et al. 2025): which groups teach, and what a response close to the
length limit loses."""

from __future__ import annotations

from torch import Tensor

from prism_trainer.algorithms.advantages import group_normalise
from prism_trainer.contract.configs import Dapo, RlvrConfig


def rlvr_rewards_and_advantages(scores_PN: Tensor, lengths_PN: Tensor, config: RlvrConfig) -> tuple[Tensor, Tensor]:
    """What stage rlvr trains the policy on, (P, N) each: the verifiable rewards, for DAPO less what an overlong response loses; and
    how much better each response is than its group. Lengths are in tokens, with the terminator."""
    rewards = scores_PN
    if isinstance(config.algorithm, Dapo):
        rewards = rewards + overlong_penalty(
            lengths_PN, max_tokens=config.rollout.max_response_tokens, buffer_tokens=config.algorithm.overlong_buffer_tokens,
            factor=config.algorithm.overlong_penalty,
        )  # fmt: skip
    return rewards, group_normalise(rewards)


def mixed_groups(correct_PN: Tensor) -> Tensor:
    """Groups (P,) with right and wrong answers in them; in all others the accuracy has no spread, and the advantage no direction.

    As upstream's `filter_groups` on `acc_reward`: not on the reward, which the format and the length move too.
    """
    return correct_PN.any(dim=1) & ~correct_PN.all(dim=1)


def overlong_penalty(lengths: Tensor, *, max_tokens: int, buffer_tokens: int, factor: float) -> Tensor:
    """Added to rewards of the same shape: 0 up to `max_tokens - buffer_tokens`, then falling linearly to -factor at `max_tokens`.

    The paper's script has a buffer of 4096 in 8192, so the penalty starts at half the budget.
    """
    over = (lengths - (max_tokens - buffer_tokens)).clamp(min=0) / buffer_tokens
    return -factor * over.clamp(max=1.0)
