"""The policy's loss as verl's workers call it. The mathematics is `algorithms/losses.py`; here it meets nested tensors and ranks."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from prism_trainer.algorithms.losses import kl_to_reference, mean_over, surrogate
from prism_trainer.contract.configs import PolicyLoss


def policy_loss(
    model_output: dict[str, Any], data: TensorDict, dp_group: Any = None, *, loss: PolicyLoss, kl_coef: float
) -> tuple[Tensor, dict[str, Metric]]:
    """Of one micro-batch, so that all of them on all ranks add up to the mean that `loss` asks for over the whole update.

    There is one optimizer step a batch, so the old policy is the present one: its log-probabilities are these, detached, and verl's pass
    that recomputes them is left out. FSDP averages gradients over ranks, hence `dp_size`.
    """
    log_probs = no_padding_2_padding(model_output["log_probs"], data).float()
    mask = padded(data["response_mask"]).bool()
    scale, counts = data["dp_size"], {"num_tokens": data["batch_num_tokens"], "num_responses": data["global_batch_size"]}
    terms = surrogate(loss, log_probs, log_probs.detach(), flat(data["advantages"]), mask)
    value = mean_over(loss, terms.loss_RT, mask, **counts)
    sums = {"clip_fraction": terms.clip_fraction * mask.sum() / counts["num_tokens"]}
    if kl_coef:
        kl = mean_over(loss, kl_to_reference(log_probs, padded(data["ref_log_prob"])), mask, **counts)
        value = value + kl_coef * kl
        sums["kl"] = kl
    if "entropy" in model_output:
        sums["entropy"] = (no_padding_2_padding(model_output["entropy"].detach(), data) * mask).sum() / counts["num_tokens"]
    if "rollout_log_probs" in data.keys():  # noqa: SIM118 - a TensorDict iterates over rows
        gap = (log_probs.detach() - padded(data["rollout_log_probs"])).abs()
        sums["rollout_gap"] = (gap * mask).sum() / counts["num_tokens"]
    return value * scale, {name: Metric(AggregationType.SUM, one.detach() * scale) for name, one in sums.items()}


def padded(nested: Tensor) -> Tensor:
    """(R, T), zeros on the right."""
    return torch.nested.to_padded_tensor(nested, 0.0) if nested.is_nested else nested


def flat(values: Tensor) -> Tensor:
    """One number a response, however it came: (R,)."""
    return (values.values() if values.is_nested else values).reshape(-1)
