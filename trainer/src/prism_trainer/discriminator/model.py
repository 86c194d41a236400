"""Qwen3-VL-MoE with a scalar head on every token. transformers has no such class for this family."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Qwen3VLMoeConfig
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeModel, Qwen3VLMoePreTrainedModel


class Qwen3VLMoeDiscriminator(Qwen3VLMoePreTrainedModel):
    """`model` is the backbone without language head; `score` maps a final-norm hidden state to a number.

    The score of a text is read at its last token, see `discriminator.spans`. Saved and loaded as a Hugging Face directory, whose
    configuration also holds how responses were presented in the warm-up (`cot_sees_caption`), so that alignment cannot do it otherwise.
    """

    def __init__(self, config: Qwen3VLMoeConfig) -> None:
        super().__init__(config)
        self.model = Qwen3VLMoeModel(config)
        self.dropout = nn.Dropout(getattr(config, "head_dropout", 0.0))
        self.score = nn.Linear(config.text_config.hidden_size, 1, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()  # type: ignore[no-any-return]

    def read_scores(self, hidden: Tensor) -> Tensor:
        """(..., H) hidden states to (...) scores, in float32."""
        return self.score(self.dropout(hidden)).squeeze(-1).to(torch.float32)  # type: ignore[no-any-return]
