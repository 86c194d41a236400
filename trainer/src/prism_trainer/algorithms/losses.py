"""Policy losses over response tokens. Shapes: R responses, T tokens; masks are bool and true on response tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prism_trainer.contract.configs import Gspo, PolicyLoss

LOG_RATIO_LIMIT = 20.0
KL_LIMIT = 10.0


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
    """PPO's clipped surrogate with the dual clip (Ye et al. 2020), as in verl's `compute_policy_loss_vanilla`. GRPO and DAPO.

    A response's advantage holds for each of its tokens. For a negative advantage the loss is bounded by -dual_clip * advantage.
    DAPO's clip-higher is a `clip_high` above `clip_low`.
    """
    ratio = torch.exp((log_probs_RT - old_log_probs_RT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    return _clip(ratio, advantages_R, mask_RT, clip_low, clip_high, dual_clip)


def sequence_surrogate(
    log_probs_RT: Tensor,
    old_log_probs_RT: Tensor,
    advantages_R: Tensor,
    mask_RT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> SurrogateTerms:
    """GSPO (Zheng et al. 2025): one ratio a response, exp of the mean over its tokens of log pi - log pi_old, clipped as a whole.

    As in verl's `compute_policy_loss_gspo` each token carries the response's ratio in value and its own log-probability in gradient, so
    that a per-token advantage could be used. Different from verl: the dual clip that upstream's script sets is carried out, verl
    ignores it there.
    """
    lengths = mask_RT.sum(dim=1).clamp(min=1)
    log_ratio_R = ((log_probs_RT - old_log_probs_RT) * mask_RT).sum(dim=1) / lengths
    log_ratio_RT = log_probs_RT - log_probs_RT.detach() + log_ratio_R.detach().unsqueeze(1)
    ratio = torch.exp(log_ratio_RT.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    return _clip(ratio, advantages_R, mask_RT, clip_low, clip_high, dual_clip)


def _clip(ratio_RT: Tensor, advantages_R: Tensor, mask_RT: Tensor, clip_low: float, clip_high: float, dual_clip: float) -> SurrogateTerms:
    advantages = advantages_R.unsqueeze(1)
    clipped_ratio = ratio_RT.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = torch.maximum(-advantages * ratio_RT, -advantages * clipped_ratio)
    loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
    clipped = (ratio_RT != clipped_ratio) & mask_RT
    return SurrogateTerms(loss, clipped.sum() / mask_RT.sum().clamp(min=1))


def surrogate(loss: PolicyLoss, log_probs_RT: Tensor, old_log_probs_RT: Tensor, advantages_R: Tensor, mask_RT: Tensor) -> SurrogateTerms:
    """The surrogate that `loss` names."""
    kind = sequence_surrogate if isinstance(loss, Gspo) else clipped_surrogate
    clips = {"clip_low": loss.clip_low, "clip_high": loss.clip_high, "dual_clip": loss.dual_clip}
    return kind(log_probs_RT, old_log_probs_RT, advantages_R, mask_RT, **clips)


def mean_over(loss: PolicyLoss, values_RT: Tensor, mask_RT: Tensor, *, num_tokens: int, num_responses: int) -> Tensor:
    """The mean that `loss` asks for: of tokens (GRPO, DAPO), or of the responses' means (GSPO). Counts are those of the whole update."""
    if isinstance(loss, Gspo):
        return sequence_mean_of_token_means(values_RT, mask_RT, num_responses)
    return token_mean(values_RT, mask_RT, num_tokens)


def token_mean(values_RT: Tensor, mask_RT: Tensor, num_tokens: int) -> Tensor:
    """Sum over the masked tokens divided by `num_tokens`.

    The count is that of the whole update, not of the micro-batch, so that accumulated micro-batches add up to the exact token mean.
    """
    return (values_RT * mask_RT).sum() / num_tokens


def sequence_mean_of_token_means(values_RT: Tensor, mask_RT: Tensor, num_responses: int) -> Tensor:
    """Each response's mean over its own tokens, summed and divided by `num_responses`, which is that of the whole update."""
    lengths = mask_RT.sum(dim=1).clamp(min=1)
    return ((values_RT * mask_RT).sum(dim=1) / lengths).sum() / num_responses


def kl_to_reference(log_probs_RT: Tensor, reference_RT: Tensor) -> Tensor:
    """Per-token estimate of KL(pi, reference), (R, T): r - 1 - log r with r = reference / pi (Schulman's k3, verl's `low_var_kl`).

    Never negative, and unbiased under pi; bounded, because a single token may otherwise outweigh a whole batch.
    """
    log_ratio = (reference_RT - log_probs_RT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (torch.exp(log_ratio) - 1.0 - log_ratio).clamp(max=KL_LIMIT)
