"""Which prompts a step learns from: the next of the stage's order, and for DAPO more of them until enough groups are mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prism_trainer.contract.configs import Dapo
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import Rows
from prism_trainer.engines.local.groups import no_mixed_groups
from prism_trainer.engines.verl.responses import Answered
from prism_trainer.engines.verl.rollout_worker import Task

Answer = Callable[[list[Task]], list[Answered]]
"""Waits for the groups of all prompts given, in their order."""


@dataclass(frozen=True)
class Draw:
    """The groups of a step, those that were drawn in vain, how many prompts it took, and metrics."""

    groups: list[Answered]
    surplus: list[Answered]
    num_prompts: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Order:
    """The stage's endless order of rows: a pure function of the seed."""

    job: StageJob
    rows: Rows[Any]

    def tasks(self, step: int, start: int, count: int) -> list[Task]:
        numbers = self.rows.order(self.job.seed, self.job.stage, start + count)[start:].tolist()
        return [Task(self.rows[number], start + offset, step) for offset, number in enumerate(numbers)]


def draw_groups(order: Order, answer: Answer, step: int, prompts_seen: int) -> Draw:
    """Groups of step `step`, of the prompts after the first `prompts_seen`: the same prompts as engine local draws."""
    config: Any = order.job.config
    algorithm = getattr(config, "algorithm", None)
    wanted = config.prompts_per_step
    if not isinstance(algorithm, Dapo):
        return Draw(answer(order.tasks(step, prompts_seen, wanted)), [], wanted, {})
    return _draw_mixed(order, answer, step, prompts_seen, wanted, algorithm)


def _draw_mixed(order: Order, answer: Answer, step: int, start: int, wanted: int, algorithm: Dapo) -> Draw:
    """Not verl's own refill: that takes whichever groups are ready first, the short ones, and has no end on data that is solved.

    Raises:
        DataError: with what was found, after `max_generation_batches`.
    """
    size = wanted * algorithm.oversampling
    kept: list[Answered] = []
    surplus: list[Answered] = []
    solved = failed = 0
    for number in range(algorithm.max_generation_batches):
        groups = answer(order.tasks(step, start + number * size, size))
        for group in groups:
            right = _num_right(group)
            solved, failed = solved + (right == len(group.responses)), failed + (right == 0)
            mixed = 0 < right < len(group.responses)
            (kept if mixed and len(kept) < wanted else surplus).append(group)
        if len(kept) == wanted:
            seen = (number + 1) * size
            metrics = {"group/generation_batches": float(number + 1), "group/solved": solved / seen, "group/failed": failed / seen}
            return Draw(kept, surplus, seen, metrics)
    raise no_mixed_groups(len(kept), wanted, algorithm.max_generation_batches, size * algorithm.max_generation_batches, solved, failed)


def _num_right(group: Answered) -> int:
    return sum(response.reward.accuracy > 0 for response in group.responses)


def keys_of(groups: Sequence[Answered]) -> list[str]:
    return [key for group in groups for key in group.keys]
