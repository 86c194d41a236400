"""What the stage's process tells when a worker fails, and what it hands to verl's optimizer."""

import pytest
import ray.exceptions
import torch
from omegaconf import OmegaConf
from torch import nn

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.contract.optim import Optimizer
from prism_trainer.engines.verl.driver import worker_failures_told
from prism_trainer.engines.verl.optimizer import go_on_from, optimizer_overrides, read_optimizer, scheduler, sharded_adamw
from prism_trainer.errors import DataError, GangError


def passed_on(error: Exception) -> ray.exceptions.RayTaskError:
    return ray.exceptions.RayTaskError("answer", "traceback", error)


@pytest.mark.parametrize(
    ("raised", "told", "sentence"),
    [
        (passed_on(DataError("prompt 7 is too long")), DataError, "^prompt 7 is too long$"),
        (passed_on(passed_on(DataError("prompt 7 is too long"))), DataError, "^prompt 7 is too long$"),
        (passed_on(MemoryError("no")), MemoryError, "no"),
        (ray.exceptions.ActorDiedError(), GangError, "a worker of the stage died: .* its own log tells why"),
        (passed_on(ray.exceptions.ActorDiedError()), GangError, "a worker of the stage died"),
    ],
)
def test_a_workers_failure_is_told_as_what_it_was(raised, told, sentence):
    with pytest.raises(told, match=sentence), worker_failures_told():
        raise raised


def test_an_optimizer_survives_the_way_through_verls_configuration():
    ours = Optimizer(learning_rate=3e-5, beta2=0.95, weight_decay=0.2, schedule="cosine", warmup_steps=7, warmup_ratio=0.1, grad_clip=0.5)
    theirs = {key.removeprefix("optim."): value for key, value in optimizer_overrides(ours, "optim").items()}
    assert read_optimizer(OmegaConf.create(theirs)) == ours


def test_only_matrices_decay_and_the_rate_is_the_schedules_also_after_a_restart():
    config = Optimizer(learning_rate=1e-3, weight_decay=0.1, schedule="cosine", warmup_steps=2)
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    decays = {one.ndim: group["weight_decay"] for group in sharded_adamw(model, config).param_groups for one in group["params"]}
    assert decays == {2: 0.1, 1: 0.0}
    optimizer = sharded_adamw(model, config)
    schedule = scheduler(optimizer, config, 10)
    for step in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(config, step, 10))
        again = sharded_adamw(model, config)
        go_on_from(scheduler(again, config, 10), step)
        assert again.param_groups[1]["lr"] == pytest.approx(learning_rate(config, step, 10))
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        schedule.step()
