"""Steps of a discriminator that several processes share, each beside the same step in one process without sharding."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.optim import Optimizer, Rollout
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.adversary import AdversaryResult, judge, step_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_processor
from prism_trainer.engines.local.optimizer import StageOptimizer, whole
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.reading import Ranks, groups_of, read_portions
from prism_trainer.engines.sharding import gather_weights, let_go, open_sharded, save_sharded
from prism_trainer.responses import ParsedResponse

CPU = torch.device("cpu")
OPTIMIZER = Optimizer(learning_rate=1e-3, weight_decay=0.1, grad_clip=0.5)


@dataclass(frozen=True)
class Case:
    """A step of alignment, and whether the discriminator learns in it."""

    name: str
    batch: Sequence[TaughtPrompt]
    parsed: Sequence[ParsedResponse | None]
    group_size: int
    micro_batch_size: int = 1
    learns: bool = True
    packed: bool = False

    @property
    def config(self) -> AlignmentConfig:
        return AlignmentConfig(
            rollout=Rollout(group_size=self.group_size), micro_batch_size=self.micro_batch_size, score_reg_coef=0.05, balance_coef=0.1
        )


@dataclass
class Outcome:
    """What a step came to: its result, whole gradients, what the update told, and whole weights after it."""

    result: AdversaryResult
    gradients: dict[str, torch.Tensor]
    told: dict[str, float]
    weights: dict[str, torch.Tensor]


def alone(folder: Path, cases: Sequence[Case]) -> list[Outcome]:
    """As engine local takes the steps, each from the weights at `folder`."""
    outcomes = []
    for case in cases:
        model = load_discriminator(folder, CPU)
        outcomes.append(_step(model, StageOptimizer(model, OPTIMIZER, 10), case, folder, Ranks()))
    return outcomes


def shared(folder: Path, cases: Sequence[Case], size: int, saved: Path) -> list[Outcome]:
    """The same by `size` processes; the model and optimizer after the last case are left at `saved`."""
    with tempfile.TemporaryDirectory() as place:
        multiprocessing.spawn(_process, (size, place, folder, list(cases), saved), nprocs=size)
        return torch.load(Path(place) / "outcomes.pt", weights_only=False)


def _process(rank: int, size: int, place: str, folder: Path, cases: Sequence[Case], saved: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/rendezvous", rank=rank, world_size=size)
    mesh = distributed.init_device_mesh("cpu", (size,))
    outcomes = []
    for case in cases:
        model = open_sharded(folder, mesh, CPU)
        optimizer = StageOptimizer(model, OPTIMIZER, 10)
        outcomes.append(_step(model, optimizer, case, folder, Ranks(rank, size, _add_up)))
    save_sharded(model, load_processor(folder), saved / "discriminator")
    optimizer.save(saved / "discriminator.safetensors")
    if rank == 0:
        torch.save(outcomes, Path(place) / "outcomes.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def _add_up(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total


def _step(model: Any, optimizer: StageOptimizer, case: Case, folder: Path, ranks: Ranks) -> Outcome:
    scorer = Scorer(model, PromptEncoder(load_processor(folder), "Answer."), 4096, CPU, case.packed)
    marks = [read_portions(scorer, groups_of(case.batch, case.parsed), case.config, learns=case.learns, ranks=ranks)]
    if distributed.is_initialized():
        everyone: list[Any] = [None] * ranks.size
        distributed.all_gather_object(everyone, marks[0])
        marks = everyone
        let_go(model)
    result = judge(marks, [one is not None for one in case.parsed], case.config)
    gradients = {name: whole(one.grad).clone() for name, one in model.named_parameters() if one.grad is not None}
    told = step_discriminator(optimizer, result) if case.learns else {}
    weights = {name: tensor.clone() for name, tensor in gather_weights(model).items()}
    return Outcome(result, gradients, told, weights)
