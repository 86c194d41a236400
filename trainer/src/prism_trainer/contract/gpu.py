"""How a stage spreads over GPUs with engine verl, a process for each. Engine local reads none of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prism_trainer.contract.schema import Frozen

RECOMPUTED = "Compute each layer again in the backward pass; off takes less time and more memory."


class SftGpu(Frozen):
    """LLaMA-Factory with DeepSpeed. ZeRO shards the optimizer and gradients (2), or the weights as well (3)."""

    zero_stage: Literal[2, 3] = Field(3, description="Of DeepSpeed's ZeRO.")
    offload: bool = Field(False, description="Keep weights and optimizer in the node's memory between uses.")
    gradient_checkpointing: bool = Field(True, description=RECOMPUTED)


class WarmupGpu(SftGpu):
    """accelerate with DeepSpeed. The prompt's keys and values are shared by two passes, which sharded weights do not allow."""

    zero_stage: Literal[2, 3] = Field(2, description="Of DeepSpeed's ZeRO.")

    @model_validator(mode="after")
    def _weights_are_whole(self) -> WarmupGpu:
        if self.zero_stage == 3:
            raise ValueError("zeroStage is 3; the discriminator's warm-up knows 2")
        return self


class EvaluationGpu(Frozen):
    """vLLM replicas that share the prompts."""

    tensor_parallel: int = Field(1, ge=1, description="GPUs that a vLLM engine spreads over.")
    memory_share: float = Field(0.9, gt=0, lt=1, description="Share of a GPU's memory for vLLM.")
    max_prompt_tokens: int = Field(16384, ge=16, description="Longest prompt, images included; a longer one is refused, not cut.")


class VerlGpu(Frozen):
    """Stages alignment and rlvr: FSDP2 and vLLM share all GPUs."""

    tokens_per_gpu: int = Field(20480, ge=32, description="Tokens in a forward on one GPU; at least the longest prompt and response.")
    max_prompt_tokens: int = Field(2048, ge=16, description="Longest prompt, images included; a longer one is refused, not cut.")
    offload: bool = Field(False, description="Keep weights and optimizer in the node's memory between uses.")
    gradient_checkpointing: bool = Field(True, description=RECOMPUTED)
    tensor_parallel: int = Field(1, ge=1, description="GPUs that a vLLM engine spreads over.")
    memory_share: float = Field(0.5, gt=0, lt=1, description="Share of a GPU's memory for vLLM.")
    rollout_sequences: int = Field(256, ge=1, description="Responses that a vLLM engine draws at once.")
    speculative_tokens: int = Field(0, ge=0, description="Tokens guessed ahead from the text so far (n-gram); 0 for none.")
    cuda_graphs: bool = Field(True, description="Compile vLLM's decoding: minutes at the start, faster from then on.")
    discriminator_gpus: int = Field(0, ge=0, description="Alignment: GPUs for the discriminator alone; 0 shares the policy's.")
