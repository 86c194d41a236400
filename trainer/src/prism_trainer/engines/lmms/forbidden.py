"""Tokens that may not be drawn, in vLLM: the same as in engine local, by the same rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor

from prism_trainer.engines.local.models import load_processor
from prism_trainer.engines.local.rollout import Vocabulary


class ForbiddenTokens(LogitsProcessor):  # type: ignore[misc]
    """One mask for all requests: `logit_bias` would be a dictionary of some three hundred rows for each of them."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        model = vllm_config.model_config
        tokenizer = load_processor(Path(model.tokenizer)).tokenizer
        self._forbidden_V = Vocabulary.of(tokenizer, model.get_vocab_size(), device).forbidden

    def apply(self, logits: Tensor) -> Tensor:
        """(R, V); in place."""
        return logits.masked_fill_(self._forbidden_V[: logits.shape[1]], -torch.inf)

    def is_argmax_invariant(self) -> bool:
        """False: it may forbid the likeliest token, so greedy decoding needs it too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing to keep: every request is treated alike."""
