"""Engine local's optimizer on FSDP2's sharded parameters: AdamW, decay on matrices only, and the schedule of `algorithms/`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.contract.optim import Optimizer


def optimizer_overrides(config: Optimizer, prefix: str) -> dict[str, Any]:
    """verl's keys for `config`; `read_optimizer` is the way back."""
    return {
        f"{prefix}.lr": config.learning_rate,
        f"{prefix}.weight_decay": config.weight_decay,
        f"{prefix}.betas": [config.beta1, config.beta2],
        f"{prefix}.clip_grad": config.grad_clip,
        f"{prefix}.lr_scheduler_type": config.schedule,
        f"{prefix}.lr_warmup_steps": config.warmup_steps,
        f"{prefix}.lr_warmup_steps_ratio": config.warmup_ratio,
    }


def read_optimizer(verl: Any) -> Optimizer:
    """From verl's `FSDPOptimizerConfig`."""
    return Optimizer(
        learning_rate=verl.lr,
        weight_decay=verl.weight_decay,
        beta1=verl.betas[0],
        beta2=verl.betas[1],
        grad_clip=verl.clip_grad,
        schedule=verl.lr_scheduler_type,
        warmup_steps=verl.lr_warmup_steps,
        warmup_ratio=verl.lr_warmup_steps_ratio,
    )


def sharded_adamw(model: nn.Module, config: Optimizer) -> torch.optim.AdamW:
    """verl's own decays biases and norms too."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def scheduler(optimizer: torch.optim.Optimizer, config: Optimizer, total_steps: int) -> LambdaLR:
    """verl's own has no half cosine to zero with a first step above zero."""
    return LambdaLR(optimizer, lambda step: learning_rate(config, step, total_steps) / config.learning_rate)


def go_on_from(schedule: LambdaLR, num_steps: int) -> None:
    """As after `num_steps` updates."""
    schedule.last_epoch = num_steps
    for group, peak, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = peak * factor(num_steps)
