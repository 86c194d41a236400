"""Qwen3-VL's patch embedding as the matrix product that it is.

Its Conv3d steps by its own size, so every patch is multiplied with the flattened kernel once. As a convolution torch from 2.9 on has been
10 times slower at it in bf16, and more (pytorch#174051, #166122). Nothing we train, score or sample with goes through Conv3d: whatever
loads a model calls this, and vLLM has a product of its own.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from prism_trainer.packed.binding import bind


def use_linear_patches(model: nn.Module) -> None:
    """For a model with a vision tower or without. On the convolution and not on what calls it, because whoever shards the model gathers a
    weight in the call of the module that has it."""
    for name, module in model.named_modules():
        if name.endswith("patch_embed.proj"):
            bind(module, _multiply)


def _multiply(self: nn.Conv3d, patches_PCTHW: Tensor) -> Tensor:
    """(P, C, T, H, W) patches of the kernel's size; (P, E, 1, 1, 1), as the convolution."""
    return functional.linear(patches_PCTHW.flatten(1), self.weight.flatten(1), self.bias).unflatten(1, (-1, 1, 1, 1))
