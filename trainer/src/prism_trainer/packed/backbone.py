"""A transformers Qwen3-VL backbone over a packed row: all prompts, all responses, one forward, images once.

`use_packed_kernels` gives the modules of the language model a forward that does the same with fewer passes over memory; without a
`layout` they do what they did before, so rollouts and the plain way go on working. The layers themselves, their checkpointing and
whatever shards them are untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_trainer.packed.attention import attend
from prism_trainer.packed.binding import bind
from prism_trainer.packed.experts import mix_experts
from prism_trainer.packed.fusion import fused
from prism_trainer.packed.layout import Layout
from prism_trainer.packed.patches import use_linear_patches
from prism_trainer.packed.vision import use_packed_images


class PaddedPrompts(Protocol):
    """(P, T) ids and mask, patches and grids of all images in order."""

    @property
    def token_ids_PT(self) -> Tensor: ...
    @property
    def mask_PT(self) -> Tensor: ...
    @property
    def pixel_values(self) -> Tensor: ...
    @property
    def image_grid_thw(self) -> Tensor: ...


@dataclass(frozen=True)
class PackedStates:
    """Final-norm hidden states (T, H), each layer's router logits (T, E) if it has a router, and where everything lies."""

    hidden_TH: Tensor
    router_logits: tuple[Tensor, ...]
    layout: Layout


def read_packed(
    backbone: nn.Module, prompts: PaddedPrompts, rows: Sequence[Sequence[int]], prompt_of: Sequence[int], image_token_id: int
) -> PackedStates:
    """`rows` are token ids; row r follows prompt `prompt_of[r]`, and rows come grouped by prompt."""
    device = prompts.token_ids_PT.device
    layout = Layout.of(prompts.mask_PT.sum(dim=1).tolist(), [len(row) for row in rows], prompt_of, device)
    row_ids = torch.tensor([token for row in rows for token in row], dtype=torch.long).to(device)
    ids = torch.cat([prompts.token_ids_PT[prompts.mask_PT], row_ids]).unsqueeze(0)
    embedded = backbone.get_input_embeddings()(ids)  # type: ignore[operator]
    seen: dict[str, Any] = {}
    if len(prompts.image_grid_thw):
        image = (ids == image_token_id) & (torch.arange(ids.shape[1], device=device) < layout.num_prompt_tokens)
        found = backbone.get_image_features(prompts.pixel_values, prompts.image_grid_thw, return_dict=True)  # type: ignore[operator]
        embedded = embedded.masked_scatter(image.unsqueeze(-1), torch.cat(found.pooler_output).to(embedded.dtype))
        seen = {"visual_pos_masks": image, "deepstack_visual_embeds": found.deepstack_features}
    out = backbone.language_model(  # type: ignore[operator]
        inputs_embeds=embedded,
        position_ids=_positions(backbone, prompts, layout, image_token_id),
        attention_mask=embedded.new_zeros(1, 1, 1, 1),  # four axes: taken as made, and `attend` needs none
        use_cache=False,
        layout=layout,
        output_router_logits=True,
        **seen,
    )
    return PackedStates(out.last_hidden_state[0], tuple(getattr(out, "router_logits", None) or ()), layout)


def _positions(backbone: nn.Module, prompts: PaddedPrompts, layout: Layout, image_token_id: int) -> Tensor:
    """(3, 1, T): the model's own three-dimensional ones for a prompt, and on from there for each of its rows."""
    mask = prompts.mask_PT.long()
    positions, deltas = backbone.get_rope_index(  # type: ignore[operator]
        prompts.token_ids_PT,
        mm_token_type_ids=(prompts.token_ids_PT == image_token_id).int(),
        image_grid_thw=prompts.image_grid_thw,
        attention_mask=mask,
    )
    after = mask.sum(dim=1) + deltas[:, 0]
    rows = (after[layout.prompt_of_token] + layout.place_in_row).expand(3, -1)
    return torch.cat([positions[:, prompts.mask_PT], rows], dim=1).unsqueeze(1)


def use_packed_kernels(backbone: nn.Module) -> None:
    """Give every layer of the language model the forwards of this module."""
    for layer in backbone.language_model.layers:  # type: ignore[union-attr]
        _require(layer)
        bind(layer.self_attn, _attention)
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            bind(norm, _head_norm)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            bind(norm, _norm)
        if hasattr(layer.mlp, "experts"):
            bind(layer.mlp.experts, _experts)
        else:
            bind(layer.mlp, _feed_forward)
    use_linear_patches(backbone)
    use_packed_images(backbone)
    bind(backbone.language_model.norm, _norm)  # type: ignore[union-attr, arg-type]


def _require(layer: Any) -> None:
    text = layer.self_attn.config
    if text.attention_dropout:
        raise ValueError(f"packed attention has no dropout, and the model's attention_dropout is {text.attention_dropout}; set it to 0")
    if text.hidden_act != "silu":
        raise ValueError(f"packed experts compute silu, and the model's hidden_act is '{text.hidden_act}'; use a Qwen3-VL model")


def _attention(
    self: Any, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], layout: Layout | None = None, **given: Any
) -> Any:
    if layout is None:
        return type(self).forward(self, hidden_states=hidden_states, position_embeddings=position_embeddings, **given)
    hidden = hidden_states[0]
    cos, sin = (part[0] for part in position_embeddings)
    value = self.v_proj(hidden).unflatten(-1, (-1, self.head_dim))
    query, key = (
        norm(project(hidden).unflatten(-1, (-1, self.head_dim)), cos, sin).to(value.dtype)
        for project, norm in ((self.q_proj, self.q_norm), (self.k_proj, self.k_norm))
    )
    return self.o_proj(attend(query, key, value, layout, self.scaling).flatten(1)).unsqueeze(0), None


def _head_norm(self: Any, hidden_states: Tensor, cos_TD: Tensor | None = None, sin_TD: Tensor | None = None) -> Tensor:
    """With the rotation, where there is one. Through the norm's own call, because ZeRO-3 gathers its weight there."""
    if cos_TD is None or sin_TD is None:
        return type(self).forward(self, hidden_states)  # type: ignore[no-any-return]
    return _norm_and_turn(hidden_states, self.weight, cos_TD, sin_TD, self.variance_epsilon)


@fused
def _norm_and_turn(heads_TND: Tensor, weight_D: Tensor, cos_TD: Tensor, sin_TD: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square norm of each head, then its rotation by the token's position."""
    states = heads_TND.float()
    states = states * torch.rsqrt(states.square().mean(dim=-1, keepdim=True) + epsilon) * weight_D.float()
    left, right = states.chunk(2, dim=-1)
    turned = torch.cat([-right, left], dim=-1)
    return (states * cos_TD.float().unsqueeze(1) + turned * sin_TD.float().unsqueeze(1)).to(heads_TND.dtype)


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def _experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    return mix_experts(hidden_states, self.gate_up_proj, self.down_proj, top_k_weights, top_k_index)


def _feed_forward(self: Any, hidden_states: Tensor) -> Tensor:
    gate, up = (project(hidden_states).flatten(0, -2) for project in (self.gate_proj, self.up_proj))
    return self.down_proj(_gated(gate, up).view(*hidden_states.shape[:-1], -1))  # type: ignore[no-any-return]


@fused
def _gated(gate_TI: Tensor, up_TI: Tensor) -> Tensor:
    return functional.silu(gate_TI) * up_TI
