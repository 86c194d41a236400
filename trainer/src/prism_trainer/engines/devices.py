"""Whether a stage of engine verl was told to do without GPUs, on a machine that may have some, or on a Ray that only counts them."""

from __future__ import annotations

import os

from prism_trainer.contract.configs import DiscriminatorConfig, EvaluationConfig, SftConfig
from prism_trainer.contract.environments import ON_CPU
from prism_trainer.contract.fitting import unheard_device
from prism_trainer.errors import PrismError


def require_heard(config: SftConfig | DiscriminatorConfig | EvaluationConfig) -> None:
    """
    Raises:
        PrismError: where the configuration alone says that the stage is to do without.
    """
    for _, sentence in unheard_device(config, told_to_use_cpu()):
        raise PrismError(sentence)


def told_to_use_cpu() -> bool:
    """By its environment, which the stage's processes on other machines share."""
    return os.environ.get(ON_CPU) == "1"
