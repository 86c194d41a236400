"""AdamW with its schedule, and its state as safetensors: of whole parameters, however many processes share them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor

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

    def step(self, num_samples: int = 1) -> dict[str, float]:
        """Divide by the samples that the gradients are a sum over, clip, update, clear. A step whose gradient is not finite is skipped and
        says so."""
        for parameter in self._parameters.values():
            if num_samples != 1 and parameter.grad is not None:
                parameter.grad.div_(num_samples)
        norm = float(whole(nn.utils.clip_grad_norm_(self._parameters.values(), self._config.grad_clip)))
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
        """All processes that share the parameters have to call; the first writes."""
        tensors = {}
        for name, parameter in self._parameters.items():
            for key, value in self._adamw.state[parameter].items():
                entry = whole(value)
                if is_first():
                    tensors[f"{name}/{key}"] = entry.cpu().contiguous()
        if is_first():
            save_file(tensors, file, metadata={"steps": str(self.num_steps)})

    def restore(self, file: Path) -> None:
        """The count is the file's, not the stage's step: a stage may take steps in which this optimizer takes none."""
        with safe_open(file, "pt") as stored:
            self.num_steps = int(stored.metadata()["steps"])
            for key in stored.keys():  # noqa: SIM118 - not a mapping
                name, _, entry = key.rpartition("/")
                parameter = self._parameters[name]
                self._adamw.state[parameter][entry] = shard_like(stored.get_tensor(key), parameter)  # `step` too: fused AdamW counts there

    def to(self, device: torch.device) -> None:
        """Move the state."""
        for entries in self._adamw.state.values():
            entries.update({key: value.to(device) for key, value in entries.items()})


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, which every process has, on the device and, if of the same shape, in the shards of `like`."""
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return tensor.to(like.device, copy=True)


def is_first() -> bool:
    """Whether this process writes for all that share a model."""
    return not distributed.is_initialized() or distributed.get_rank() == 0
