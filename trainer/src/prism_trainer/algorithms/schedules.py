"""Learning-rate factors: a linear rise, then constant or a half cosine to zero."""

from __future__ import annotations

import math

from prism_trainer.contract.optim import Optimizer


def learning_rate(config: Optimizer, step: int, total_steps: int) -> float:
    """Rate of update number `step`, counted from 0, of `total_steps`.

    The first update of a warm-up of W steps has 1/W of the peak, so no step is spent on a rate of 0.
    """
    warmup = max(config.warmup_steps, round(config.warmup_ratio * total_steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
