"""Which rows make up which step: a pure function of the seed, so that a resumed stage sees the rows it would have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prism_trainer.seeds import seed_for


def epoch_order(num_rows: int, seed: int, place: str, count: int) -> np.ndarray:
    """The first `count` row indices of an endless sequence of differently shuffled passes; (count,) int."""
    passes = -(-count // num_rows)
    shuffles = [np.random.default_rng(seed_for(seed, place, number)).permutation(num_rows) for number in range(passes)]
    return np.concatenate([np.empty(0, dtype=np.int64), *shuffles])[:count]


def mixture_order(sizes: Sequence[int], weights: Sequence[float | None], seed: int, place: str, count: int) -> np.ndarray:
    """`count` row numbers of the sets behind each other; (count,) int. Sets are drawn by weight, rows of a set by `epoch_order`, so no
    row repeats before its whole set was seen.

    A set without weight has its number of rows for one. Where no set has a weight, all rows are shuffled as one set, so that one
    epoch is every row exactly once, which drawing reaches only on average.
    """
    if all(weight is None for weight in weights):
        return epoch_order(sum(sizes), seed, place, count)
    filled = np.asarray([size if weight is None else weight for size, weight in zip(sizes, weights, strict=True)], dtype=np.float64)
    chosen = np.random.default_rng(seed_for(seed, place, "mixture")).choice(len(sizes), size=count, p=filled / filled.sum())
    starts = np.cumsum([0, *sizes])
    rows = np.empty(count, dtype=np.int64)
    for number, size in enumerate(sizes):
        of_set = chosen == number
        rows[of_set] = starts[number] + epoch_order(size, seed, f"{place}/{number}", int(of_set.sum()))
    return rows
