"""Qwen3-VL with a scalar head on every token, sparse and dense. transformers has no such classes for this family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen3VLConfig, Qwen3VLMoeConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel, Qwen3VLPreTrainedModel
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeModel, Qwen3VLMoePreTrainedModel

from prism_trainer.packed.patches import use_linear_patches

Read = TypeVar("Read")


class ScalarHead:
    """What every discriminator has: `model`, the backbone without language head, and `score`, from a final-norm hidden state to a number.

    The score of a text is read at its last token, see `discriminator.spans`. Saved and loaded as a Hugging Face directory, whose
    configuration also holds how responses were presented in the warm-up, so that alignment cannot do it otherwise: `cot_sees_caption`,
    and `sees_images`, without which there is no vision tower and prompts are read without their images.
    """

    config: Any
    model: nn.Module
    dropout: nn.Dropout
    score: nn.Linear

    def add_head(self) -> None:
        self.dropout = nn.Dropout(getattr(self.config, "head_dropout", 0.0))
        self.score = nn.Linear(self.config.text_config.hidden_size, 1, bias=False)
        if not self.sees_images:
            del self.model.visual
        use_linear_patches(self.model)

    @property
    def sees_images(self) -> bool:
        return bool(getattr(self.config, "sees_images", True))

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()  # type: ignore[operator, no-any-return]

    def forward(self, read: Callable[..., Read], *given: Any) -> Read:
        """`read(*given)`, which uses the model as it likes. Through here, so that what shards the model sees its weights are needed."""
        return read(*given)

    def read_scores(self, hidden: Tensor) -> Tensor:
        """(..., H) hidden states to (...) scores, in float32: teacher and student may lie closer together than bf16 can tell."""
        with torch.autocast(hidden.device.type, enabled=False):
            return functional.linear(self.dropout(hidden).float(), self.score.weight.float()).squeeze(-1)


class Qwen3VLMoeDiscriminator(ScalarHead, Qwen3VLMoePreTrainedModel):
    """The paper's: a mixture of experts."""

    def __init__(self, config: Qwen3VLMoeConfig) -> None:
        super().__init__(config)
        self.model = Qwen3VLMoeModel(config)
        self.add_head()
        self.post_init()


class Qwen3VLDiscriminator(ScalarHead, Qwen3VLPreTrainedModel):
    """The dense one of the ablation. Its head has no bias either: a preference between two scores does not feel one."""

    def __init__(self, config: Qwen3VLConfig) -> None:
        super().__init__(config)
        self.model = Qwen3VLModel(config)
        self.add_head()
        self.post_init()


Discriminator = Qwen3VLMoeDiscriminator | Qwen3VLDiscriminator
DISCRIMINATORS = {kind.__name__: kind for kind in (Qwen3VLMoeDiscriminator, Qwen3VLDiscriminator)}
