"""One rank of the discriminator, in the place of verl's critic: it scores and trains in one pass, by the code of engine local."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.device import get_device_id, get_device_name
from verl.utils.distributed import initialize_global_process_group_ray

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_processor, quiet_transformers
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.reading import Group, Marks, Ranks, read_portions
from prism_trainer.engines.sharding import kind_of, let_go, move, open_sharded, save_sharded
from prism_trainer.seeds import seed_for

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DiscriminatorSite:
    """Where a rank finds what it works on: the job as JSON, and the folders of the discriminator and of the policy's processor."""

    job: str
    discriminator_dir: str
    processor_dir: str


class DiscriminatorWorker(Worker):  # type: ignore[misc]
    """Every rank is given all that is to be read and reads its own portions of it (`engines.portions`).

    With verl 0.9.1 the trainer builds its critic in a private method, before it can be told anything of ours: `reset` and `set_loss_fn` are
    for that, and `open` is where the work begins.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        initialize_global_process_group_ray(timeout_second=None)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def reset(self) -> None: ...

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def set_loss_fn(self, loss_fn: Any) -> None: ...

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def open(self, site: DiscriminatorSite) -> str:
        """Returns the architecture."""
        quiet_transformers()
        self.job = StageJob.model_validate_json(site.job)
        config = self.config
        self.device = CPU if get_device_name() == "cpu" else torch.device(get_device_name(), get_device_id())
        mesh = init_device_mesh(self.device.type, (distributed.get_world_size(),))
        self.processor = load_processor(Path(site.processor_dir))
        self.model = open_sharded(Path(site.discriminator_dir), mesh, self.device)
        self.optimizer = StageOptimizer(self.model, config.discriminator_optimizer, config.steps)
        encoder = PromptEncoder(self.processor, self.job.system_prompt)
        longest = self.model.config.text_config.max_position_embeddings
        self.scorer = Scorer(self.model, encoder, longest, self.device, recompute=self.config.gpu.gradient_checkpointing)
        self._put_away()
        return kind_of(self.model).__name__

    @property
    def config(self) -> AlignmentConfig:
        assert isinstance(self.job.config, AlignmentConfig)
        return self.job.config

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def score_and_accumulate(self, groups: list[Group], step: int, *, learns: bool) -> tuple[Marks, float]:
        """Scores of this rank's portions of these groups of step `step`, and the seconds it took; if the discriminator `learns`, it adds to
        the gradients of its loss. A step may come in any number of calls, whose order is the same for all ranks."""
        began = time.monotonic()
        self._take_out()
        ranks = Ranks(distributed.get_rank(), distributed.get_world_size(), add_up)
        seed = seed_for(self.job.seed, self.job.stage, "dropout", step)
        marks = read_portions(self.scorer, groups, self.config, learns=learns, ranks=ranks, seed=seed)
        let_go(self.model)
        if not (learns and any(group.num_valid for group in groups)):
            self._put_away()
        return marks, time.monotonic() - began

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def step_discriminator(self, num_valid: int) -> dict[str, float]:
        """The optimizer step for the gradients that the calls of `score_and_accumulate` left, of `num_valid` students in all."""
        self._take_out()
        told = self.optimizer.step(num_valid)
        self._put_away()
        return told

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def write_weights(self, folder: str) -> None:
        self._take_out()
        save_sharded(self.model, self.processor, Path(folder))
        self._put_away()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def write_optimizer(self, file: str) -> None:
        self._take_out()
        self.optimizer.save(Path(file))
        distributed.barrier()
        self._put_away()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def read_optimizer(self, file: str) -> None:
        self._take_out()
        self.optimizer.restore(Path(file))
        self._put_away()

    def _take_out(self) -> None:
        if self.config.gpu.offload:
            self._move(self.device)

    def _put_away(self) -> None:
        """To the node's memory, where the stage says so."""
        if self.config.gpu.offload:
            self._move(CPU)

    def _move(self, device: torch.device) -> None:
        move(self.model, device)
        self.optimizer.to(device)
        if device.type == "cpu" and self.device.type == "cuda":
            torch.cuda.empty_cache()


def add_up(tensor: Tensor) -> Tensor:
    """Over all ranks; what is added up is counted, and no gradient goes through it."""
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total
