"""From rows to tensors: prompts through the model's own processor, responses through its tokenizer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prism_trainer.data.rows import Prompt
from prism_trainer.engines.local.models import Processor
from prism_trainer.errors import DataError


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt up to and with the assistant's opening: `token_ids` (T,), patches (S, D) and their grids (I, 3)."""

    token_ids: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor


@dataclass(frozen=True)
class PromptBatch:
    """Prompts padded on the left: (P, T) ids and mask, all patches and grids in order."""

    token_ids_PT: Tensor
    mask_PT: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor

    def to(self, device: torch.device) -> PromptBatch:
        return PromptBatch(*(tensor.to(device) for tensor in (self.token_ids_PT, self.mask_PT, self.pixel_values, self.image_grid_thw)))


class PromptEncoder:
    """Encodes each prompt once; small sets are met many times in a run, and images are the slow part."""

    def __init__(self, processor: Processor, system_prompt: str, cache_bytes: int = 2**30) -> None:
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._processor = processor
        self._system_prompt = system_prompt
        self._cache: dict[str, EncodedPrompt] = {}
        self._bytes_left = cache_bytes

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        missing = {prompt.id: prompt for prompt in prompts if prompt.id not in self._cache}
        encoded = dict(zip(missing, self._encode_new(list(missing.values())), strict=True))
        result = [encoded.get(prompt.id) or self._cache[prompt.id] for prompt in prompts]
        size = sum(one.pixel_values.nbytes + one.token_ids.nbytes for one in encoded.values())
        if size <= self._bytes_left:
            self._cache.update(encoded)
            self._bytes_left -= size
        return result

    def collate(self, prompts: Sequence[Prompt]) -> PromptBatch:
        return collate_prompts(self.encode(prompts), self.tokenizer.pad_token_id)

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response or a part of it, without a terminator."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _encode_new(self, prompts: list[Prompt]) -> list[EncodedPrompt]:
        if not prompts:
            return []
        images = [[Image.open(io.BytesIO(image)).convert("RGB") for image in prompt.images] for prompt in prompts]
        texts = [render_prompt(self._processor, prompt, self._system_prompt) for prompt in prompts]
        try:
            inputs = self._processor(text=texts, images=images if any(images) else None)
        except (ValueError, IndexError) as error:
            if len(prompts) > 1:  # one of them is at fault: find out which
                return [encoded for prompt in prompts for encoded in self._encode_new([prompt])]
            raise DataError(f"prompt {prompts[0].id} cannot be encoded: {error}; correct its images or remove the row") from error
        return _split(inputs, [len(prompt.images) for prompt in prompts])


def messages_of(prompt: Prompt, system_prompt: str) -> list[dict[str, Any]]:
    """The paper's user turn is "<image>\\n{question}\\n": the line break after the images stays."""
    text = f"\n{prompt.question}\n" if prompt.images else f"{prompt.question}\n"
    content = [*({"type": "image"} for _ in prompt.images), {"type": "text", "text": text}]
    return [{"role": "system", "content": prompt.system or system_prompt}, {"role": "user", "content": content}]


def render_prompt(processor: Processor, prompt: Prompt, system_prompt: str) -> str:
    """Up to and with the assistant's opening; a mark stands where an image goes."""
    return str(processor.apply_chat_template(messages_of(prompt, system_prompt), tokenize=False, add_generation_prompt=True))


def collate_prompts(encoded: Sequence[EncodedPrompt], pad_id: int) -> PromptBatch:
    """Left padding, so that every response starts at the same column."""
    longest = max(len(prompt.token_ids) for prompt in encoded)
    token_ids = torch.full((len(encoded), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(token_ids, dtype=torch.bool)
    for row, prompt in enumerate(encoded):
        token_ids[row, longest - len(prompt.token_ids) :] = prompt.token_ids
        mask[row, longest - len(prompt.token_ids) :] = True
    return PromptBatch(token_ids, mask, *join_images(encoded))


def join_images(encoded: Sequence[EncodedPrompt]) -> tuple[Tensor, Tensor]:
    """Patches and grids of all images in order; prompts without images have none to join."""
    seeing = [prompt for prompt in encoded if len(prompt.image_grid_thw)]
    if not seeing:
        return encoded[0].pixel_values, encoded[0].image_grid_thw
    return torch.cat([prompt.pixel_values for prompt in seeing]), torch.cat([prompt.image_grid_thw for prompt in seeing])


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, (R, T)."""
    longest = max(map(len, sequences))
    token_ids = torch.full((len(sequences), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(token_ids, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        token_ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = True
    return token_ids, mask


def _split(inputs: dict[str, object], images_per_prompt: list[int]) -> list[EncodedPrompt]:
    """The processor's flat output, cut back into prompts."""
    ids = inputs["input_ids"]
    grids = torch.as_tensor(inputs["image_grid_thw"]) if "image_grid_thw" in inputs else torch.zeros(0, 3, dtype=torch.long)
    pixels = torch.as_tensor(inputs["pixel_values"]) if "pixel_values" in inputs else torch.zeros(0, 0)
    encoded, image, patch = [], 0, 0
    for row, count in zip(ids, images_per_prompt, strict=True):  # type: ignore[call-overload]
        own_grids = grids[image : image + count]
        patches = int(own_grids.prod(dim=1).sum())
        encoded.append(EncodedPrompt(torch.tensor(row, dtype=torch.long), pixels[patch : patch + patches], own_grids))
        image, patch = image + count, patch + patches
    return encoded
