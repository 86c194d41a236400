"""Losses of the discriminator: pairwise preference, score size, load balance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def bradley_terry(teacher: Tensor, student: Tensor) -> Tensor:
    """-log sigmoid(teacher - student), elementwise."""
    return -functional.logsigmoid(teacher - student)


def pair_accuracy(margin: Tensor) -> float:
    """Share of pairs with the teacher above the student; equal scores, as of equal texts, count half."""
    return ((margin > 0).float() + 0.5 * (margin == 0).float()).mean().item()


def balance_loss(router_logits: Sequence[Tensor], mask: Tensor, experts_per_token: int) -> Tensor:
    """Switch load balancing over all layers: E * sum_e f_e p_e, which is `experts_per_token` when perfectly even.

    `router_logits`: a (tokens, E) tensor a layer; `mask` (tokens,) is false on padding. f_e is the share of tokens sent to expert e,
    p_e the mean router probability. Computed from logits that carry gradient (upstream's came from inside a no-grad pass and were a
    constant, defect B3; transformers 5.9 leaves the model's own out altogether).
    """
    per_layer = []
    for logits in router_logits:
        probabilities = torch.softmax(logits.float()[mask], dim=-1)
        chosen = probabilities.topk(experts_per_token, dim=-1).indices
        share = functional.one_hot(chosen, logits.shape[-1]).sum(dim=1).float().mean(dim=0)
        per_layer.append(logits.shape[-1] * (share * probabilities.mean(dim=0)).sum())
    return torch.stack(per_layer).mean()
