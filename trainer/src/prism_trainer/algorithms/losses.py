"""Policy losses over response tokens. Shapes: R responses, T tokens; masks are bool and true on response tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SurrogateTerms:
    """Per-token loss (R, T), and the share of tokens whose ratio was clipped."""

    loss_RT: Tensor
    clip_fraction: Tensor


def clipped_surrogate(
    log_probs_RT: Tensor,
    old_log_probs_RT: Tensor,
    advantages_R: Tensor,
    mask_RT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> SurrogateTerms:
    """PPO's clipped surrogate with the dual clip (Ye et al. 2020), as in verl's `compute_policy_loss_vanilla`.

    A response's advantage holds for each of its tokens. For a negative advantage the loss is bounded by -dual_clip * advantage.
    """
    advantages = advantages_R.unsqueeze(1)
    ratio = torch.exp((log_probs_RT - old_log_probs_RT).clamp(-20.0, 20.0))
    clipped_ratio = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped_ratio)
    loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
    clipped = (ratio != clipped_ratio) & mask_RT
    return SurrogateTerms(loss, clipped.sum() / mask_RT.sum().clamp(min=1))


def token_mean(values_RT: Tensor, mask_RT: Tensor, num_tokens: int) -> Tensor:
    """Sum over the masked tokens divided by `num_tokens`.

    The count is that of the whole update, not of the micro-batch, so that accumulated micro-batches add up to the exact token mean.
    """
    return (values_RT * mask_RT).sum() / num_tokens
