"""Randomness as a function of place: the same run, stage and step always draw the same numbers.

So a resumed stage needs no saved generator state, and interrupted training ends with the same weights as uninterrupted training.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, *place: object) -> int:
    """A 63-bit seed for a place such as ("alignment", "rollout", step)."""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def generator_for(seed: int, *place: object) -> torch.Generator:
    """A CPU generator seeded for a place."""
    import torch  # here, because who only reads data sets needs the seeds and not half a gigabyte of torch

    return torch.Generator().manual_seed(seed_for(seed, *place))
