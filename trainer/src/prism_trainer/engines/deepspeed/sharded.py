"""A discriminator and its AdamW under DeepSpeed's ZeRO-2, through accelerate: gradients and optimizer are sharded, weights are not.

The same update as `engines.local.optimizer.StageOptimizer`: groups, clipping, schedule. On GPUs in bf16 with weights in float32 beside the
optimizer; on a CPU in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs
from torch import nn

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.engines.comparisons import Comparison, compare
from prism_trainer.engines.local.pairs import Pair
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.errors import PrismError

TAG = "zero"
LONGEST_WAIT = timedelta(hours=2)
"""For a collective operation: ranks of a machine load one after another, and rank 0 alone writes the weights."""


class Comparer(nn.Module):
    """The comparison of some pairs as one module's forward, which is what DeepSpeed drives."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.discriminator = scorer.model
        self._scorer = scorer

    def forward(self, pairs: Sequence[Pair], config: DiscriminatorConfig) -> tuple[torch.Tensor, Comparison]:
        compared = compare(self._scorer, pairs)
        return compared.total(config), compared


class ShardedDiscriminator:
    """Of one rank."""

    def __init__(self, accelerator: Accelerator, scorer: Scorer, config: DiscriminatorConfig, total_steps: int) -> None:
        self.scorer, self.num_steps = scorer, 0
        self._accelerator, self._config, self._total_steps = accelerator, config, total_steps
        comparer = Comparer(scorer)
        self._engine, self._optimizer = accelerator.prepare(comparer, _adamw(comparer, config))
        self._world_size = accelerator.num_processes

    def step(self, chunks: Sequence[Sequence[Pair]], num_pairs: int) -> dict[str, float]:
        """One update on the mean over the `num_pairs` pairs of all ranks, of which these are this rank's. Metrics are those of all."""
        self.scorer.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate = learning_rate(self._config.optimizer, self.num_steps, self._total_steps)
        sums = torch.zeros(3, dtype=torch.float64)
        for number, chunk in enumerate(chunks):
            share = len(chunk) / num_pairs
            total, compared = self._engine(chunk, self._config)
            # gradients are averaged over the ranks, so the sum needs their number
            self._accelerator.deepspeed_engine_wrapped.backward(
                total * share * self._world_size, sync_gradients=number + 1 == len(chunks), scale_wrt_gas=False
            )
            sums += share * torch.tensor([compared.loss.item(), compared.balance.item(), compared.accuracy], dtype=torch.float64)
        self.num_steps += 1
        norm = float(self._accelerator.deepspeed_engine_wrapped.get_global_grad_norm())
        if not math.isfinite(norm):
            raise PrismError(
                f"the gradient of step {self.num_steps} is {norm}; what was committed before is sound: lower optimizer.learningRate"
            )
        loss, balance, accuracy = self._accelerator.reduce(sums.to(self._accelerator.device), "sum").tolist()
        return {"loss": loss, "balance_loss": balance, "pair_acc": accuracy, "grad_norm": norm, "lr": rate}

    def save(self, folder: Path) -> None:
        """What is needed to go on, each rank its shard."""
        self._engine.save_checkpoint(str(folder), tag=TAG, client_state={"num_steps": self.num_steps})

    def restore(self, folder: Path) -> None:
        path, client_state = self._engine.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise PrismError(f"'{folder}' cannot be read by DeepSpeed; remove the checkpoint to start the stage over")
        self.num_steps = int(client_state["num_steps"])


def make_accelerator(config: DiscriminatorConfig) -> Accelerator:
    """Starts the process group: NCCL, or gloo without a GPU, which accelerate has to be told."""
    have_gpus = torch.cuda.is_available()
    group = InitProcessGroupKwargs(backend="nccl" if have_gpus else "gloo", timeout=LONGEST_WAIT)
    plugin = DeepSpeedPlugin(hf_ds_config=zero_settings(config, have_gpus=have_gpus))
    return Accelerator(deepspeed_plugin=plugin, kwargs_handlers=[group])


def zero_settings(config: DiscriminatorConfig, *, have_gpus: bool) -> dict[str, Any]:
    """DeepSpeed's. Sizes of batches are settled here, not there, so its own are one.

    With torch's own AdamW on the host too: DeepSpeed's is compiled when first used and needs CUDA's compiler, which the image has not.
    """
    zero: dict[str, Any] = {"stage": config.gpu.zero_stage, "overlap_comm": have_gpus, "contiguous_gradients": True}
    if config.gpu.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": have_gpus}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.grad_clip,
        "bf16": {"enabled": have_gpus},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def _adamw(model: nn.Module, config: DiscriminatorConfig) -> torch.optim.AdamW:
    """Matrices decay, biases and norms do not."""
    given = config.optimizer
    parameters = list(model.parameters())
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": given.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=given.learning_rate, betas=(given.beta1, given.beta2), fused=True)
