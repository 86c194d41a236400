"""How much of a GPU's memory a step of alignment needs, by arithmetic, and the deepest discriminator that fits.

A weight that is trained takes 12 bytes always (itself and Adam's two states in float32) and 4 more while it has a gradient: the
discriminator's between its scores and its update, the policy's in its own. With `offload` a model is on the GPU only while it works.

For one H100 of 80 GB, policy 2B, a quarter of it for vLLM, responses of 512 to 3,488 tokens: 9 of the discriminator's 28 layers fit
without offload, 18 with. All 28 have 5.3 billion weights, 85 GB by themselves: they fit an H200, with or without offload. Upstream's padded
rows leave room for 2 layers without offload, and for 18 with. Estimates, to be corrected by what a run shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from shapes import TEXT

VOCABULARY, HEADS, HEAD_DIM, KV_HEADS = 151936, 16, 128, 8
VISION_WEIGHTS = 0.41e9
EXPERTS = 4
RESERVE = 0.05
"""Of the memory, lost between blocks."""
CONTEXTS = 4.5e9
"""Three processes' CUDA contexts and libraries, and what a sleeping vLLM keeps."""
WORK_PER_TOKEN = 270e3
"""Bytes a token of a packed row while a layer of the 2B discriminator goes back: 60.2 GiB less 42.4 GB of bf16 states less the layers'
checkpoints were measured for 58,326 tokens (README, "A whole step")."""
LOGIT_BYTES = 20
"""A logit of padded rows: in bf16, in float32, scaled, its gradient, and the loss's copies."""
PADDED_TOKENS = 8192
"""In upstream's micro-batch of padded rows."""
TOKENS_BESIDE = 2250
"""The prompt with its image, and its teacher."""


@dataclass(frozen=True)
class Load:
    """What is asked of a GPU."""

    size: str
    offload: bool
    vllm_share: float
    lengths: tuple[int, int]
    padded: bool
    """Whether the policy's update reads padded rows, with all of their logits at once."""
    group: int = 16


def policy_weights(size: str) -> float:
    hidden, layers = TEXT[size]["hidden_size"], TEXT[size]["num_hidden_layers"]
    return _beside(hidden) + layers * (_attention(size) + 3 * hidden * TEXT[size]["intermediate_size"])


def discriminator_weights(size: str, layers: int) -> float:
    hidden = TEXT[size]["hidden_size"]
    return _beside(hidden) + layers * (_attention(size) + EXPERTS * 3 * hidden * TEXT[size]["intermediate_size"])


def _attention(size: str) -> float:
    hidden, heads = TEXT[size]["hidden_size"], TEXT[size]["num_attention_heads"]
    return 2.0 * hidden * HEAD_DIM * (heads + KV_HEADS)


def _beside(hidden: int) -> float:
    """Embeddings, which are the head too, and the vision tower."""
    return VOCABULARY * hidden + VISION_WEIGHTS


def phases(load: Load, layers: int, total: float) -> dict[str, float]:
    """Bytes in each phase of a step, on a GPU of `total` bytes."""
    policy, discriminator, hidden = policy_weights(load.size), discriminator_weights(load.size, layers), TEXT[load.size]["hidden_size"]
    at_rest = {"policy": 0.0 if load.offload else 12 * policy, "discriminator": 0.0 if load.offload else 12 * discriminator}
    read = TOKENS_BESIDE + load.group * mean(load.lengths)
    checkpoints = 2.0 * read * hidden
    gathered = 6 * _beside(hidden)
    width = hidden / TEXT["2B"]["hidden_size"]
    rows = LOGIT_BYTES * PADDED_TOKENS * VOCABULARY if load.padded else WORK_PER_TOKEN * width * max(16384, 2048 + load.lengths[1]) / 2
    return {
        "rollout": sum(at_rest.values()) + load.vllm_share * total + CONTEXTS,
        "discriminator": at_rest["policy"]
        + 16 * discriminator
        + gathered
        + layers * checkpoints
        + read * WORK_PER_TOKEN * width
        + CONTEXTS,
        "policy's update": at_rest["discriminator"] + 16 * policy + gathered + rows + CONTEXTS,
    }


def misfit(load: Load, layers: int, total: float) -> str | None:
    """The first phase that does not fit, as a sentence."""
    room = (1 - RESERVE) * total
    for phase, need in phases(load, layers, total).items():
        if need > room:
            best = deepest(load, total)
            fits = f"{best} layers fit" if best else "no number of layers fits"
            instead = "" if load.offload else ", or keep models in the node's memory between uses (--offload)"
            return (
                f"{phase} needs {need / 1e9:.0f} GB with {layers} layers of the discriminator, and this GPU has {room / 1e9:.0f} GB to "
                f"give; {fits}: say so by --discriminator-layers{instead}"
            )
    return None


def deepest(load: Load, total: float) -> int:
    """How many layers fit; 0 where none do."""
    room = (1 - RESERVE) * total
    depths = range(TEXT[load.size]["num_hidden_layers"], 0, -1)
    return next((layers for layers in depths if max(phases(load, layers, total).values()) <= room), 0)
