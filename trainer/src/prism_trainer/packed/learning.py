"""A policy that learns whole conversations: a micro-batch is one packed row, and its loss is the policy's forward.

A conversation is one segment, a prompt that nothing follows: few share their prompt, and one softmax is less work than two. The head makes
logits where something is learnt, `CHUNK` tokens at a time, and again in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from prism_trainer.packed.backbone import read_packed, use_packed_kernels
from prism_trainer.packed.binding import bind
from prism_trainer.packed.log_probs import CHUNK


@dataclass(frozen=True)
class _Conversations:
    token_ids_PT: Tensor
    mask_PT: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor


def learn_packed(policy: Any) -> None:
    """From now on `policy` (a `Qwen3VLForConditionalGeneration` or its mixture-of-experts sibling) called with padded rows

        token_ids_RT, mask_RT, target_RT    (R, T), and which tokens are learnt: never a row's first
        pixel_values, image_grid_thw        patches and grids of all images in order

    gives the summed cross entropy of the targets. It samples no more: its head is called with hidden states and what they should tell.
    Both through their own call, because DeepSpeed gathers weights and sends gradients on in hooks of that.
    """
    use_packed_kernels(policy.model)
    bind(policy.lm_head, summed_cross_entropy)
    bind(policy, _loss)


def _loss(self: Any, token_ids_RT: Tensor, mask_RT: Tensor, target_RT: Tensor, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
    conversations = _Conversations(token_ids_RT, mask_RT, pixel_values, image_grid_thw)
    hidden_TH = read_packed(self.model, conversations, [], [], self.config.image_token_id).hidden_TH
    before_RT = functional.pad(target_RT[:, 1:], (0, 1))
    return self.lm_head(hidden_TH[before_RT[mask_RT]], token_ids_RT[target_RT])  # type: ignore[no-any-return]


def summed_cross_entropy(head: nn.Module, hidden_TH: Tensor, chosen_T: Tensor, chunk: int = CHUNK) -> Tensor:
    """`log_probs.chosen_log_probs` at temperature 1 without forbidden tokens, summed, and without the entropies that nobody asks for."""
    if len(hidden_TH) <= chunk:
        return _cross_entropy(hidden_TH, head.weight, chosen_T)  # type: ignore[arg-type]
    parts = [
        checkpoint(_cross_entropy, hidden, head.weight, chosen, use_reentrant=False)
        for hidden, chosen in zip(hidden_TH.split(chunk), chosen_T.split(chunk), strict=True)
    ]
    return torch.stack(parts).sum()


def _cross_entropy(hidden_TH: Tensor, head_VH: Tensor, chosen_T: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden_TH, head_VH).float(), chosen_T, reduction="sum")
