"""One prompt, many continuations: the prompt and its image go through the model once, each response attends to the cached result.

Rollouts, policy updates and discriminator scores all come through here. It is exact, gradients included: a causal model computes the
same keys and values for a prompt whatever follows it. With 16 responses to a prompt it saves 15 of 16 passes over prompt and image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from prism_trainer.engines.local.encoding import PromptBatch


@dataclass(frozen=True)
class Prefix:
    """Encoded prompts: keys and values, mask (P, T), next rotary position (P,), hidden state of the last token (P, H)."""

    cache: DynamicCache
    mask_PT: Tensor
    next_position_P: Tensor
    last_hidden_PH: Tensor
    router_logits: tuple[Tensor, ...]


@dataclass(frozen=True)
class Continuation:
    """Final-norm hidden states (R, T, H) and, for a mixture of experts, each layer's router logits (R*T, E)."""

    hidden_RTH: Tensor
    router_logits: tuple[Tensor, ...]


def encode_prefix(backbone: nn.Module, prompts: PromptBatch, image_token_id: int) -> Prefix:
    """Run `backbone` (a `Qwen3VLModel` or its mixture-of-experts sibling, without head) over the prompts.

    Positions are the model's own three-dimensional ones (upstream gave the discriminator one-dimensional ones, defect A3).
    """
    types = (prompts.token_ids_PT == image_token_id).int()
    mask = prompts.mask_PT.long()
    positions, deltas = backbone.get_rope_index(  # type: ignore[operator]
        prompts.token_ids_PT, mm_token_type_ids=types, image_grid_thw=prompts.image_grid_thw, attention_mask=mask
    )
    cache = DynamicCache()
    has_images = len(prompts.image_grid_thw) > 0
    out = backbone(
        input_ids=prompts.token_ids_PT,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        pixel_values=prompts.pixel_values if has_images else None,
        image_grid_thw=prompts.image_grid_thw if has_images else None,
        output_router_logits=True,
    )
    next_position = mask.sum(dim=1) + deltas[:, 0]
    return Prefix(cache, prompts.mask_PT, next_position, out.last_hidden_state[:, -1], tuple(getattr(out, "router_logits", None) or ()))


def continue_prefix(backbone: nn.Module, prefix: Prefix, rows_R: Tensor, token_ids_RT: Tensor, mask_RT: Tensor) -> Continuation:
    """Run `token_ids_RT` after the prompts that `rows_R` picks; padding is on the right."""
    steps = torch.arange(token_ids_RT.shape[1], device=token_ids_RT.device)
    positions = (prefix.next_position_P[rows_R].unsqueeze(1) + steps).expand(3, -1, -1)
    out = backbone(
        input_ids=token_ids_RT,
        attention_mask=torch.cat([prefix.mask_PT[rows_R], mask_RT], dim=1).long(),
        position_ids=positions,
        past_key_values=select_rows(prefix.cache, rows_R),
        use_cache=True,
        output_router_logits=True,
    )
    return Continuation(out.last_hidden_state, tuple(getattr(out, "router_logits", None) or ()))


def select_rows(cache: DynamicCache, rows_R: Tensor) -> DynamicCache:
    """A new cache with the chosen rows; gradients flow back into the old one.

    `index_select`, because the backward of indexing with repeated rows may add up in any order, and equal runs should end equally.
    """
    selected = DynamicCache()
    for index, layer in enumerate(cache.layers):
        selected.update(layer.keys.index_select(0, rows_R), layer.values.index_select(0, rows_R), index)  # type: ignore[union-attr]
    return selected
