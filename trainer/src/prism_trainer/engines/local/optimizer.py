"""AdamW with its schedule, and its state as safetensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.contract.optim import Optimizer


class StageOptimizer:
    """The optimizer of one model in one stage: clips, steps, counts.

    `restore` takes the state that `save` wrote, by parameter name; training goes on to the same bits.
    """

    def __init__(self, model: nn.Module, config: Optimizer, total_steps: int) -> None:
        self.num_steps = 0
        self._config = config
        self._total_steps = total_steps
        self._parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        decayed = [parameter for parameter in self._parameters.values() if parameter.ndim > 1]
        plain = [parameter for parameter in self._parameters.values() if parameter.ndim <= 1]
        self._adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True,
        )

    def step(self) -> dict[str, float]:
        """Clip, update, clear. A step whose gradient is not finite is skipped and says so."""
        norm = float(nn.utils.clip_grad_norm_(self._parameters.values(), self._config.grad_clip))
        rate = learning_rate(self._config, self.num_steps, self._total_steps)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        skipped = not math.isfinite(norm)
        if not skipped:
            self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self.num_steps += 1
        return {"lr": rate, "skipped": 1.0} if skipped else {"grad_norm": norm, "lr": rate}

    def save(self, file: Path) -> None:
        tensors = {
            f"{name}/{key}": value.contiguous()
            for name, parameter in self._parameters.items()
            for key, value in self._adamw.state[parameter].items()
        }
        save_file(tensors, file, metadata={"steps": str(self.num_steps)})

    def restore(self, file: Path) -> None:
        """The count is the file's, not the stage's step: a stage may take steps in which this optimizer takes none."""
        with safe_open(file, "pt") as stored:
            self.num_steps = int(stored.metadata()["steps"])
        for key, value in load_file(file).items():
            name, _, entry = key.rpartition("/")
            parameter = self._parameters[name]
            self._adamw.state[parameter][entry] = value.to(parameter.device, copy=True)  # `step` too: fused AdamW counts on the device
