"""Hyperparameters that several stages share: optimizer, sampling, policy loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prism_trainer.contract.schema import Frozen


class Optimizer(Frozen):
    """AdamW and its learning-rate schedule."""

    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay; biases and norms are not decayed.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the second moment.")
    grad_clip: float = Field(1.0, gt=0, description="Global gradient norm above which gradients are scaled down.")
    schedule: Literal["constant", "cosine"] = Field("constant", description="Learning rate after warm-up.")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of the stage's steps with a linearly rising rate.")
    warmup_steps: int = Field(0, ge=0, description="The same as a count; the larger of the two holds.")


class SftOptimizer(Optimizer):
    """The paper's stage 1: lr 1e-5, cosine, 10 % warm-up."""

    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay; biases and norms are not decayed.")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="Learning rate after warm-up.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the stage's steps with a linearly rising rate.")


class WarmupOptimizer(SftOptimizer):
    """The discriminator's pairwise warm-up: lr 1e-5, weight decay 0.01, cosine, 10 % warm-up."""

    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay; biases and norms are not decayed.")


class Sampling(Frozen):
    """How responses are drawn from a policy."""

    temperature: float = Field(1.0, gt=0, description="Softmax temperature.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus mass kept at each token.")
    max_response_tokens: int = Field(6144, ge=1, description="Longest response; a longer one is cut and counts as invalid.")


class EvaluationSampling(Sampling):
    """The paper's evaluation: temperature 1.0, top-p 0.7."""

    top_p: float = Field(0.7, gt=0, le=1, description="Nucleus mass kept at each token.")
    max_response_tokens: int = Field(8192, ge=1, description="Longest response; a longer one is cut and counts as invalid.")


class Rollout(Sampling):
    """On-policy rollouts: a group of responses to each prompt."""

    group_size: int = Field(16, ge=2, description="Responses drawn for each prompt (n); advantages are relative to the group.")


class RlvrRollout(Rollout):
    """Stage 3 allows longer responses than stage 2."""

    max_response_tokens: int = Field(8192, ge=1, description="Longest response; a longer one is cut and counts as invalid.")
