"""A step of the discriminator by engine local, and by ranks of verl's workers over gloo: what went in, and what came out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.adversary import AdversaryResult, judge, score_and_accumulate, step_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_processor
from prism_trainer.engines.local.optimizer import StageOptimizer, whole
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.reading import Marks, groups_of
from prism_trainer.responses import ParsedResponse
from rank_processes import spawn_ranks

CPU = torch.device("cpu")
SYSTEM = "Answer as caption, think, answer."
OURS = ("prism_trainer.engines.verl.discriminator_worker", "DiscriminatorWorker")


@dataclass(frozen=True)
class Step:
    """A batch of prompts and their responses."""

    batch: Sequence[TaughtPrompt]
    parsed: Sequence[ParsedResponse | None]


@dataclass(frozen=True)
class Outcome:
    """Of each step its result and what the update told; weights after the last."""

    results: list[AdversaryResult]
    told: list[dict[str, float]]
    weights: dict[str, Tensor]


def job_of(config: AlignmentConfig) -> StageJob:
    return StageJob(
        run="r", stage="alignment", attempt=1, engine="verl", seed=0, system_prompt=SYSTEM, config=config, config_digest="d",
        output_uri="o", report_dir="r",
    )  # fmt: skip


def by_engine_local(folder: Path, config: AlignmentConfig, steps: Sequence[Step]) -> Outcome:
    model = load_discriminator(folder, CPU)
    optimizer = StageOptimizer(model, config.discriminator_optimizer, config.steps)
    scorer = Scorer(model, PromptEncoder(load_processor(folder), SYSTEM), model.config.text_config.max_position_embeddings, CPU)
    results, told = [], []
    for step in steps:
        results.append(score_and_accumulate(scorer, step.batch, step.parsed, config))
        told.append(step_discriminator(optimizer, results[-1]))
    return Outcome(results, told, dict(model.state_dict()))


def by_workers(
    folder: Path,
    config: AlignmentConfig,
    steps: Sequence[Step],
    place: Path,
    world: int,
    resume_at: int | None = None,
    worker: tuple[str, str] = OURS,
) -> Outcome:
    """On `world` real ranks; with `resume_at`, saved before that step and gone on from what was saved. `worker` is a class, as module and
    name."""
    place.mkdir()
    torch.save((config, list(steps), worker), place / "in.pt")
    spawn_ranks(_rank, world, folder, place, resume_at)
    outcomes = [torch.load(place / f"{rank}.pt", weights_only=False) for rank in range(world)]
    marks: list[list[Marks]] = [list(of_step) for of_step in zip(*(marks for marks, _ in outcomes), strict=True)]
    results = [judge(one, [answer is not None for answer in step.parsed], config) for one, step in zip(marks, steps, strict=True)]
    return Outcome(results, outcomes[0][1], dict(load_discriminator(place / "discriminator", CPU).state_dict()))


def _rank(rank: int, world: int, folder: Path, place: Path, resume_at: int | None) -> None:
    config, steps, (module, name) = torch.load(place / "in.pt", weights_only=False)

    from prism_trainer.engines.verl.discriminator_worker import DiscriminatorSite

    worker = getattr(importlib.import_module(module), name)(None)
    job = job_of(config).model_dump_json(by_alias=True)
    worker.open(DiscriminatorSite(job, str(folder), str(folder)))
    marks, told = [], []
    for number, step in enumerate(steps):
        if number == resume_at:
            worker.write_weights(str(place / "between"))
            worker.write_optimizer(str(place / "between.safetensors"))
            worker.open(DiscriminatorSite(job, str(place / "between"), str(folder)))
            worker.read_optimizer(str(place / "between.safetensors"))
        marks.append(worker.score_and_accumulate(groups_of(step.batch, step.parsed), number, learns=True)[0])
        valid = sum(one is not None for one in step.parsed)
        told.append({f"critic/{name}": value for name, value in worker.step_discriminator(valid).items()} if valid else {})
    worker.write_weights(str(place / "discriminator"))
    torch.save((marks, told), place / f"{rank}.pt")


@dataclass(frozen=True)
class Left:
    """What a step leaves before its update: the result, and the gradients of whole parameters, sums over the valid students."""

    result: AdversaryResult
    gradients: dict[str, Tensor]


def left_by_workers(
    folder: Path, config: AlignmentConfig, steps: Sequence[Step], orders: Sequence[Sequence[Sequence[int]]], place: Path, world: int
) -> list[Left]:
    """Each step from the same weights on `world` real ranks, its prompts in as many calls as its order has parts."""
    place.mkdir()
    torch.save((config, list(steps), orders), place / "in.pt")
    spawn_ranks(_rank_without_updates, world, folder, place)
    told = [torch.load(place / f"{rank}.pt", weights_only=False) for rank in range(world)]
    lefts = []
    for step, by_rank in zip(steps, zip(*told, strict=True), strict=True):
        marks = [one for marks, _ in by_rank for one in marks]
        lefts.append(Left(judge(marks, [one is not None for one in step.parsed], config), by_rank[0][1]))
    return lefts


def _rank_without_updates(rank: int, world: int, folder: Path, place: Path) -> None:
    config, steps, orders = torch.load(place / "in.pt", weights_only=False)

    from prism_trainer.engines.verl.discriminator_worker import DiscriminatorSite, DiscriminatorWorker

    worker = DiscriminatorWorker(None)
    worker.open(DiscriminatorSite(job_of(config).model_dump_json(by_alias=True), str(folder), str(folder)))
    told = []
    for number, (step, order) in enumerate(zip(steps, orders, strict=True)):
        groups = groups_of(step.batch, step.parsed)
        marks = [worker.score_and_accumulate([groups[prompt] for prompt in part], number, learns=True)[0] for part in order]
        told.append((marks, {name: whole(one.grad).cpu() for name, one in worker.model.named_parameters() if one.grad is not None}))
        worker.model.zero_grad()
    torch.save(told, place / f"{rank}.pt")
