"""Intervals and tests over units: what is drawn anew is a whole problem, with all its prompts and seeds, because those are not independent.

Scores are ratios of sums over units (`scores`), as arrays `numerators_U` and `denominators_U`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BOOTSTRAP_DRAWS = 2000
PERMUTATIONS = 10_000
EXACT_UP_TO = 12
"""Units that differ up to which all sign flips are tried: 4096 of them."""
_BLOCK = 500
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Resampling:
    """How often each unit is drawn in each draw of the bootstrap, (B, U): the same for all scores and checkpoints, so that they pair."""

    counts_BU: NDArray[np.uint8]

    @classmethod
    def of(cls, num_units: int, seed: int) -> Resampling:
        rng = np.random.default_rng(seed)
        counts = np.zeros((BOOTSTRAP_DRAWS, num_units), dtype=np.uint8)
        for draw in range(BOOTSTRAP_DRAWS):
            counts[draw] = np.bincount(rng.integers(0, num_units, num_units), minlength=num_units).clip(max=255)
        return cls(counts)

    def ratio(self, numerators_U: Array, denominators_U: Array) -> Array:
        """The score in each draw, (B,); nan in draws without any of its units."""
        both_U2 = np.stack([numerators_U, denominators_U], axis=1)
        sums_B2 = np.concatenate([block @ both_U2 for block in np.array_split(self.counts_BU, BOOTSTRAP_DRAWS // 100)])
        above, below = sums_B2.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(below > 0, above / below, np.nan))


def interval(draws_B: Array, confidence: float) -> tuple[float, float]:
    """Percentile interval of what the draws gave."""
    draws = draws_B[~np.isnan(draws_B)]
    if not len(draws):
        return 0.0, 0.0
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def sign_flip_p_value(differences_U: Array, seed: int) -> float:
    """Two-sided p-value of a sum of paired differences: how often it is as large when each unit's sign is a coin's toss.

    Exact for up to `EXACT_UP_TO` units that differ at all; else from `PERMUTATIONS` tosses, counting the one observed, so never 0.
    """
    moved = differences_U[np.abs(differences_U) > _TOLERANCE]
    if not len(moved):
        return 1.0
    observed = abs(moved.sum()) - _TOLERANCE
    if len(moved) <= EXACT_UP_TO:
        signs = np.asarray(list(itertools.product((-1.0, 1.0), repeat=len(moved))))
        return float(np.mean(np.abs(signs @ moved) >= observed))
    rng, extreme = np.random.default_rng(seed), 0
    for _ in range(PERMUTATIONS // _BLOCK):
        signs = rng.integers(0, 2, size=(_BLOCK, len(moved))) * 2.0 - 1.0
        extreme += int(np.sum(np.abs(signs @ moved) >= observed))
    return (extreme + 1) / (PERMUTATIONS + 1)
