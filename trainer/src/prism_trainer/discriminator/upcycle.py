"""Sparse upcycling: a dense Qwen3-VL becomes a mixture of experts, tensor by tensor (paper section 3; upstream moe/create_vl_moe.py).

Each expert of a layer starts as that layer's feed-forward block plus noise; the router starts small and random; all else is copied. With
noise 0 the experts are equal and the router's weights sum to one, so the function is exactly that of the dense model.

Different from upstream: a tensor that has no source or another shape is an error, not a warning over random weights; and the router and
head are drawn from a seed.

The two ablations are made here as well. dense: the policy's own feed-forward blocks with a head (upstream: Qwen3-VL-4B). text: experts,
but no vision tower, and prompts without images (upstream: an upcycled Qwen3-1.7B; here the policy's language model, so that what the
ablation takes away is the sight and nothing else).
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3VLConfig, Qwen3VLMoeConfig

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.discriminator.model import Discriminator, Qwen3VLDiscriminator, Qwen3VLMoeDiscriminator
from prism_trainer.errors import ModelError

_EXPERT = re.compile(r"(?P<layer>.*\.layers\.\d+\.mlp)\.experts\.(?P<tensor>gate_up_proj|down_proj)$")
_ROUTER = re.compile(r".*\.layers\.\d+\.mlp\.gate\.weight$")
COPIED_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "attention_bias", "tie_word_embeddings",
    "pad_token_id", "bos_token_id", "eos_token_id", "initializer_range", "dtype",
)  # fmt: skip


def make_discriminator(policy: PreTrainedModel, config: DiscriminatorConfig, generator: torch.Generator) -> Discriminator:
    """The discriminator of `config.backbone` made from `policy`, a `Qwen3VLForConditionalGeneration`."""
    if policy.config.model_type != "qwen3_vl":
        raise ModelError(f"cannot upcycle a '{policy.config.model_type}' model, expected 'qwen3_vl'; give the discriminator another policy")
    return add_head(policy, config, generator) if config.backbone == "dense" else upcycle(policy, config, generator)


def upcycle(dense: PreTrainedModel, config: DiscriminatorConfig, generator: torch.Generator) -> Qwen3VLMoeDiscriminator:
    """A mixture of experts made from `dense`."""
    model = Qwen3VLMoeDiscriminator(_moe_config(dense.config, config))
    _fill(model, dense, config, generator)
    return model


def add_head(dense: PreTrainedModel, config: DiscriminatorConfig, generator: torch.Generator) -> Qwen3VLDiscriminator:
    """A copy of `dense` with a scalar head; noise, experts and router of `config` have no part in it."""
    given = dense.config.to_dict()
    given = {name: value for name, value in given.items() if name not in ("architectures", "model_type", "transformers_version")}
    model = Qwen3VLDiscriminator(Qwen3VLConfig(**given, **_presentation(config)))
    _fill(model, dense, config, generator)
    return model


def _fill(model: Discriminator, dense: PreTrainedModel, config: DiscriminatorConfig, generator: torch.Generator) -> None:
    source = {name: tensor.cpu() for name, tensor in dense.state_dict().items()}
    target = {name: _make_tensor(name, tensor, source, config, generator) for name, tensor in model.state_dict().items()}
    model.load_state_dict(target)


def _presentation(config: DiscriminatorConfig) -> dict[str, Any]:
    """What the saved model says of itself, beside its shape."""
    shown: dict[str, Any] = {"head_dropout": config.head_dropout, "cot_sees_caption": config.cot_sees_caption}
    return {**shown, "sees_images": False} if config.backbone == "text" else shown


def _moe_config(dense: object, config: DiscriminatorConfig) -> Qwen3VLMoeConfig:
    text = {name: getattr(dense.text_config, name) for name in COPIED_TEXT_FIELDS if hasattr(dense.text_config, name)}  # type: ignore[attr-defined]
    text |= {
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": text["intermediate_size"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "tie_word_embeddings")
    kept: dict[str, Any] = {name: getattr(dense, name) for name in ids}
    vision = dense.vision_config.to_dict()  # type: ignore[attr-defined]
    vision.pop("model_type", None)
    return Qwen3VLMoeConfig(text_config=text, vision_config=vision, **kept, **_presentation(config))


def _make_tensor(name: str, like: Tensor, source: dict[str, Tensor], config: DiscriminatorConfig, generator: torch.Generator) -> Tensor:
    if name == "score.weight":
        return torch.randn(like.shape, generator=generator) * config.head_std
    if _ROUTER.match(name):
        return torch.randn(like.shape, generator=generator) * config.router_std
    if match := _EXPERT.match(name):
        dense = _dense_block(match["layer"], match["tensor"], source)
        return _require_shape(name, dense.expand(like.shape), like) + torch.randn(like.shape, generator=generator) * config.noise_std
    if name not in source:
        raise ModelError(f"upcycling: the dense model has no tensor '{name}'; it is not a Qwen3-VL of a known layout")
    return _require_shape(name, source[name], like)


def _dense_block(layer: str, tensor: str, source: dict[str, Tensor]) -> Tensor:
    """(1, out, in), rows of the gate before rows of the up projection: the layout of transformers 5's fused experts."""
    if tensor == "down_proj":
        return source[f"{layer}.down_proj.weight"].unsqueeze(0)
    return torch.cat([source[f"{layer}.gate_proj.weight"], source[f"{layer}.up_proj.weight"]]).unsqueeze(0)


def _require_shape(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape != like.shape:
        raise ModelError(f"upcycling: tensor '{name}' has shape {tuple(tensor.shape)}, expected {tuple(like.shape)}")
    return tensor.clone()
