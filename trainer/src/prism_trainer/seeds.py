"""Randomness as a function of place: the same run, stage and step always draw the same numbers.

So a resumed stage needs no saved generator state, and interrupted training ends with the same weights as uninterrupted training.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, *place: object) -> int:
    """A 63-bit seed for a place such as ("alignment", "rollout", step)."""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def generator_for(seed: int, *place: object) -> torch.Generator:
    """A CPU generator seeded for a place."""
    return torch.Generator().manual_seed(seed_for(seed, *place))
