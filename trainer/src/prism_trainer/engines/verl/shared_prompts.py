"""Which rows of a batch answer the same prompt.

Told by what a prompt is, its tokens and its images' patches bit for bit, and not by a name that travels beside it: whatever is shared by
this, nothing is shared wrongly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils

from prism_trainer.engines.local.encoding import EncodedPrompt

NO_PATCHES, NO_GRIDS = torch.zeros(0, 0), torch.zeros(0, 3, dtype=torch.long)


def prompts_of(batch: TensorDict) -> list[EncodedPrompt]:
    """Of each row."""
    images = tensordict_utils.get(batch, "multi_modal_inputs")
    return [
        EncodedPrompt(ids, seen.get("pixel_values", NO_PATCHES), seen.get("image_grid_thw", NO_GRIDS))
        for ids, seen in zip(batch["prompts"].unbind(), images, strict=True)
    ]


def number_prompts(prompts: Sequence[EncodedPrompt]) -> list[int]:
    """The same number for the same prompt, in the order in which they come."""
    known: list[EncodedPrompt] = []
    alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    numbers = []
    for prompt in prompts:
        candidates = alike[tuple(prompt.token_ids.tolist())]
        number = next((one for one in candidates if _same_images(known[one], prompt)), len(known))
        if number == len(known):
            known.append(prompt)
            candidates.append(number)
        numbers.append(number)
    return numbers


def _same_images(one: EncodedPrompt, other: EncodedPrompt) -> bool:
    return torch.equal(one.image_grid_thw, other.image_grid_thw) and torch.equal(one.pixel_values, other.pixel_values)
