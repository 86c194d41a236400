"""The vision tower's attention over all images of a row at once, where there is a GPU.

transformers splits the row and calls attention image by image, asking the device for the lengths three times a layer: a tower of 24 layers
then waits for itself more than it computes. On a CPU its way stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prism_trainer.packed.attention import attend_spans
from prism_trainer.packed.binding import bind
from prism_trainer.packed.fusion import fused
from prism_trainer.packed.layout import Spans


def use_packed_images(backbone: nn.Module) -> None:
    """For a backbone with a vision tower or without."""
    tower = getattr(backbone, "visual", None)
    if tower is None:
        return
    bind(tower, _read_images)
    for block in tower.blocks:
        bind(block.attn, _attention)


def _read_images(self: Any, hidden_states: Tensor, grid_thw: Tensor, **given: Any) -> Any:
    if hidden_states.is_cuda:
        given["spans"] = image_spans(grid_thw)
    return type(self).forward(self, hidden_states, grid_thw, **given)


def image_spans(grid_thw: Tensor) -> Spans:
    """Of each frame's patches with themselves; (N, 3) numbers of frames, rows and columns."""
    lengths = [rows * columns for frames, rows, columns in grid_thw.tolist() for _ in range(frames)]
    return Spans.of(lengths, lengths, grid_thw.device)


def _attention(
    self: Any, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], spans: Spans | None = None, **given: Any
) -> Tensor:
    if spans is None:
        return type(self).forward(self, hidden_states, position_embeddings=position_embeddings, **given)  # type: ignore[no-any-return]
    query, key, value = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
    # FSDP2 casts what a block is called with, but not again where the backward pass computes the block once more: so the cast is ours
    cos, sin = (part.to(query.dtype) for part in position_embeddings)
    query, key = (_turn(heads, cos, sin) for heads in (query, key))
    return self.proj(attend_spans(query, key, value, spans, self.scaling).flatten(1))  # type: ignore[no-any-return]


@fused
def _turn(heads_PND: Tensor, cos_PD: Tensor, sin_PD: Tensor) -> Tensor:
    """Rotation of each head by its patch's position, in float32."""
    states = heads_PND.float()
    left, right = states.chunk(2, dim=-1)
    turned = torch.cat([-right, left], dim=-1)
    return (states * cos_PD.float().unsqueeze(1) + turned * sin_PD.float().unsqueeze(1)).to(heads_PND.dtype)
