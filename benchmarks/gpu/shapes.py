"""Models of the paper's sizes with random weights, made where they are used, and what a forward pass of them costs.

The numbers are those of the public configurations of Qwen3-VL-2B-Instruct and Qwen3-VL-4B-Instruct. Throughput does not depend on the
weights' values, but random ones spread tokens over the experts as trained ones are made to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig

from prism_trainer.discriminator.model import Qwen3VLMoeDiscriminator

H100_BF16 = 989e12
"""Dense bf16 FLOP/s by the data sheet; 798 TFLOP/s were measured on an 8192-wide product."""
VISION_START, VISION_END, IMAGE = 151652, 151653, 151655
TEXT = {
    "2B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4},
}


def text_config(size: str, layers: int | None = None) -> dict[str, Any]:
    tiny = size == "tiny"
    return {
        **TEXT[size],
        **({"num_hidden_layers": layers} if layers else {}),
        "vocab_size": 1024 if tiny else 151936,
        "num_key_value_heads": 2 if tiny else 8,
        "head_dim": 32 if tiny else 128,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [6, 5, 5] if tiny else [24, 20, 20],
            "mrope_interleaved": True,
        },
        "initializer_range": 0.02,
        "pad_token_id": None,
    }


def vision_config(size: str) -> dict[str, Any]:
    tiny = size == "tiny"
    return {
        "depth": 2 if tiny else 24,
        "hidden_size": 32 if tiny else 1024,
        "intermediate_size": 64 if tiny else 4096,
        "num_heads": 2 if tiny else 16,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": TEXT[size]["hidden_size"],
        "num_position_embeddings": 64 if tiny else 2304,
        "deepstack_visual_indexes": [0] if tiny else [5, 11, 17],
        "initializer_range": 0.02,
    }


def special_ids(size: str) -> dict[str, int]:
    start, end, image = (250, 251, 252) if size == "tiny" else (VISION_START, VISION_END, IMAGE)
    return {"vision_start_token_id": start, "vision_end_token_id": end, "image_token_id": image, "video_token_id": image + 1}


def make_discriminator(size: str, device: torch.device, dtype: torch.dtype, layers: int | None = None) -> Qwen3VLMoeDiscriminator:
    """Qwen3-VL of `size` upcycled to 4 experts of which 2 work on a token."""
    text = text_config(size, layers)
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": text["intermediate_size"], "norm_topk_prob": True}
    config = Qwen3VLMoeConfig(
        text_config={**text, **moe, "decoder_sparse_step": 1, "mlp_only_layers": []},
        vision_config=vision_config(size),
        tie_word_embeddings=True,
        cot_sees_caption=False,
        head_dropout=0.0,
        **special_ids(size),
    )
    return _make(Qwen3VLMoeDiscriminator, config, device, dtype)


def make_policy(size: str, device: torch.device, dtype: torch.dtype, layers: int | None = None) -> Qwen3VLForConditionalGeneration:
    ids = special_ids(size)
    config = Qwen3VLConfig(text_config=text_config(size, layers), vision_config=vision_config(size), tie_word_embeddings=True, **ids)
    return _make(Qwen3VLForConditionalGeneration, config, device, dtype)


def _make(kind: Any, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = kind(config)
    finally:
        torch.set_default_dtype(before)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


@dataclass(frozen=True)
class Prompts:
    """As an engine hands them over: (P, T) ids and mask padded on the left, patches and grids."""

    token_ids_PT: Tensor
    mask_PT: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor

    def one(self, index: int) -> Prompts:
        """Without padding."""
        mask = self.mask_PT[index]
        ids = self.token_ids_PT[index][mask].unsqueeze(0)
        patches = int(self.image_grid_thw[index].prod())
        pixels = self.pixel_values[index * patches : (index + 1) * patches]
        return Prompts(ids, torch.ones_like(ids, dtype=torch.bool), pixels, self.image_grid_thw[index : index + 1])


def make_prompts(size: str, text_lengths: Sequence[int], side: int, device: torch.device) -> Prompts:
    """Questions of so many tokens, each about one image of `side` x `side` pixels."""
    ids, grid = special_ids(size), side // 16
    image = [ids["vision_start_token_id"], *[ids["image_token_id"]] * (grid // 2) ** 2, ids["vision_end_token_id"]]
    generator = torch.Generator().manual_seed(1)
    rows = [[*torch.randint(0, 250, (length,), generator=generator).tolist()[:8], *image] for length in text_lengths]
    for row, length in zip(rows, text_lengths, strict=True):
        row += torch.randint(0, 250, (length - 8,), generator=generator).tolist()
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows], device=device)
    patches = torch.randn(len(rows) * grid * grid, 3 * 2 * 16 * 16, generator=generator).to(device)
    return Prompts(tokens, mask, patches, torch.tensor([[1, grid, grid]] * len(rows), device=device))


def active_parameters(model: nn.Module) -> int:
    """Weights of the language model's layers that one token is multiplied with: 2 of 4 experts, no embedding, no head."""
    text = model.config.get_text_config()
    total = 0
    for name, parameter in model.named_parameters():
        if "language_model.layers" in name and parameter.ndim > 1:
            total += parameter.numel() * text.num_experts_per_tok // text.num_experts if ".experts." in name else parameter.numel()
    return total


def text_flops(model: nn.Module, tokens: int, seen: int) -> float:
    """One forward pass of the language model's layers; `seen` is the sum over tokens of the keys each attends to."""
    text = model.config.get_text_config()
    return 2.0 * active_parameters(model) * tokens + 4.0 * text.num_attention_heads * text.head_dim * text.num_hidden_layers * seen


def vision_flops(model: nn.Module, images: int, side: int) -> float:
    """One forward pass of the vision tower; its mergers work on a quarter of the patches."""
    vision, patches = model.config.vision_config, (side // 16) ** 2
    blocks = sum(p.numel() for n, p in model.named_parameters() if "visual.blocks" in n and p.ndim > 1)
    mergers = sum(p.numel() for n, p in model.named_parameters() if "visual" in n and "merger" in n and p.ndim > 1)
    return images * patches * (2.0 * blocks + mergers / 2 + 4.0 * vision.hidden_size * vision.depth * patches)


def causal(length: int, before: int = 0) -> int:
    """Keys seen by `length` tokens that follow `before` others."""
    return length * before + length * (length + 1) // 2
