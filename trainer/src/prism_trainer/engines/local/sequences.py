"""Whole conversations as training batches: prompt, response and terminator in one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prism_trainer.data.rows import Demonstration
from prism_trainer.engines.local.encoding import PromptEncoder, join_images, pad_right
from prism_trainer.errors import DataError


@dataclass(frozen=True)
class TrainingBatch:
    """Rows padded on the right: ids, mask, and which tokens are learnt (R, T); patches and grids of all images in order."""

    token_ids_RT: Tensor
    mask_RT: Tensor
    target_RT: Tensor
    types_RT: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        return TrainingBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def model_inputs(self) -> dict[str, Any]:
        inputs = {"input_ids": self.token_ids_RT, "attention_mask": self.mask_RT.long(), "mm_token_type_ids": self.types_RT}
        if len(self.image_grid_thw):
            inputs |= {"pixel_values": self.pixel_values, "image_grid_thw": self.image_grid_thw}
        return {**inputs, "use_cache": False}


def collate_demonstrations(encoder: PromptEncoder, rows: Sequence[Demonstration], max_length: int) -> TrainingBatch:
    """A row above `max_length` tokens is refused, not cut."""
    encoded = encoder.encode([row.prompt for row in rows])
    answers = [[*encoder.response_ids(row.response), encoder.tokenizer.eos_token_id] for row in rows]
    sequences = [[*prompt.token_ids.tolist(), *answer] for prompt, answer in zip(encoded, answers, strict=True)]
    for row, sequence in zip(rows, sequences, strict=True):
        if len(sequence) > max_length:
            raise DataError(
                f"demonstration {row.prompt.id} has {len(sequence)} tokens, above maxLength {max_length}; raise it or remove the row"
            )
    token_ids, mask = pad_right(sequences, encoder.tokenizer.pad_token_id)
    target = torch.zeros_like(mask)
    for index, (prompt, answer) in enumerate(zip(encoded, answers, strict=True)):
        target[index, len(prompt.token_ids) : len(prompt.token_ids) + len(answer)] = True
    return TrainingBatch(
        token_ids,
        mask,
        target,
        (token_ids == encoder.image_token_id).int(),
        *join_images(encoded),
    )
