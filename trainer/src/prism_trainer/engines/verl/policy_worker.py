"""One rank of the policy: verl's worker on our engine, and its checkpoint in whole tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.device import get_device_id
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from prism_trainer.engines.verl import full_state
from prism_trainer.engines.verl.optimizer import go_on_from
from prism_trainer.engines.verl.policy_engine import POLICY_ENGINE


class PolicyTrainingWorker(TrainingWorker):  # type: ignore[misc]
    """verl's, on `PolicyEngine`."""

    def __init__(self, config: Any) -> None:
        super().__init__(dataclasses.replace(config, model_type=POLICY_ENGINE))

    def write_weights(self, folder: str) -> None:
        engine = self.engine
        full_state.write_weights(engine.module, self.model_config.hf_config, self.model_config.get_processor(), Path(folder), _device())

    def write_optimizer(self, file: str) -> None:
        engine = self.engine
        full_state.write_optimizer(engine.module, engine.optimizer, engine.lr_scheduler.last_epoch, Path(file), _device())

    def read_optimizer(self, file: str) -> None:
        engine = self.engine
        num_steps = full_state.read_optimizer_state(engine.module, engine.optimizer, Path(file), _device())
        go_on_from(engine.lr_scheduler, num_steps)
        if engine.is_optimizer_offload_enabled:
            engine.to("cpu", model=False, optimizer=True, grad=False)

    def read_weights(self, folder: str) -> None:
        full_state.read_weights(self.engine.module, Path(folder))


class PolicyWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """Actor, weight sender and, with a KL term, reference of a rank."""

    actor_worker_cls = PolicyTrainingWorker
    ref_worker_cls = PolicyTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def write_weights(self, folder: str) -> None:
        self.actor.write_weights(folder)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def write_optimizer(self, file: str) -> None:
        self.actor.write_optimizer(file)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def read_optimizer(self, file: str) -> None:
        self.actor.read_optimizer(file)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def hold_to(self, folder: str) -> None:
        """Make the policy in `folder` the reference; verl starts it from the policy that is trained."""
        self.ref.read_weights(folder)


def _device() -> torch.device:
    return torch.device(get_device_id())
