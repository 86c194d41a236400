"""The real input: 1,797 scans of handwritten digits from scikit-learn, paired into images.

The scans are split once, by index, into three disjoint parts, so that no scan seen in sft appears in reinforcement learning and none
of either in the held-out test.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

Split = Literal["sft", "rl", "test"]
SHARES: dict[Split, float] = {"sft": 0.55, "rl": 0.22, "test": 0.23}
SCAN_PIXELS = 32
"""A scan is 8 x 8; it is enlarged so that it covers exactly one visual token (2 x 2 patches of 16 pixels)."""


@dataclass(frozen=True)
class Scans:
    """The scans of one split: `images` (N, 8, 8) uint8, `labels` (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two scans side by side."""

    left: int
    right: int
    png: bytes


def load_scans(split: Split) -> Scans:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    start = 0
    for name, share in SHARES.items():
        stop = start + round(share * len(order))
        if name == split:
            chosen = order[start:stop]
            return Scans((digits.images[chosen] * 255 / 16).astype(np.uint8), digits.target[chosen])
        start = stop
    raise ValueError(f"unknown split '{split}', expected one of {', '.join(SHARES)}")


def draw_pairs(scans: Scans, count: int, seed: int) -> Iterator[Pair]:
    """`count` random pairs; a scan may appear in many, a pair of scans hardly ever twice."""
    rng = random.Random(seed)
    for _ in range(count):
        left, right = rng.randrange(len(scans.labels)), rng.randrange(len(scans.labels))
        yield Pair(int(scans.labels[left]), int(scans.labels[right]), _png(scans.images[left], scans.images[right]))


def _png(left: np.ndarray, right: np.ndarray) -> bytes:
    canvas = Image.new("L", (2 * SCAN_PIXELS, SCAN_PIXELS))
    for position, scan in enumerate((left, right)):
        enlarged = Image.fromarray(scan).resize((SCAN_PIXELS, SCAN_PIXELS), Image.Resampling.BICUBIC)
        canvas.paste(enlarged, (position * SCAN_PIXELS, 0))
    buffer = io.BytesIO()
    canvas.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
