"""The same update by engine local and by ranks of engine verl: what went in, and what came out."""

from __future__ import annotations

import importlib
import io
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
import torch.multiprocessing
from PIL import Image
from torch import Tensor

from prism_trainer.contract.configs import AlignmentConfig, RlvrConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.rows import Prompt
from prism_trainer.engines.local.encoding import PromptEncoder, pad_right
from prism_trainer.engines.local.models import load_policy, load_processor
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import Responses, Vocabulary
from prism_trainer.engines.local.update import Reference, score_tokens, update_policy
from rank_processes import spawn_ranks

CPU = torch.device("cpu")
SYSTEM = "Answer as caption, think, answer."
RAGGED = {"prompts", "responses", "response_mask", "loss_mask", "input_ids", "rollout_log_probs", "ref_log_prob"}


@dataclass(frozen=True)
class Batch:
    """Prompts, `group_size` responses of each, and an advantage each."""

    prompts: list[Prompt]
    token_ids: list[list[int]]
    advantages: Tensor


@dataclass(frozen=True)
class Case:
    """An update: of the policy in `base_dir`, with a reference in `other_dir` where the configuration has a KL term.

    `verl` are keys of verl's that are not as on a CPU, `worker` a class in the place of our `PolicyWorker`, as module and name.
    """

    config: RlvrConfig | AlignmentConfig
    batch: Batch
    base_dir: Path
    other_dir: Path
    verl: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    worker: tuple[str, str] = ("prism_trainer.engines.verl.policy_worker", "PolicyWorker")


@dataclass(frozen=True)
class Outcome:
    """`readings` are the prompts that each micro-batch of the first rank reads, where there are micro-batches."""

    metrics: dict[str, float]
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]
    readings: tuple[int, ...] = ()


def png(seed: int, width: int = 64, height: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3)).save(buffer, "PNG")
    return buffer.getvalue()


def job_of(config: RlvrConfig | AlignmentConfig) -> StageJob:
    return StageJob(
        run="r",
        stage=config.kind,
        attempt=1,
        engine="verl",
        seed=0,
        system_prompt=SYSTEM,
        config=config,
        config_digest="d",
        output_uri="o",
        report_dir="r",
    )


def by_engine_local(case: Case) -> Outcome:
    config, batch = case.config, case.batch
    policy, processor = load_policy(case.base_dir, CPU).eval(), load_processor(case.base_dir)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, CPU)
    optimizer = _Watched(policy, config.optimizer, config.steps)
    kl_coef = kl_coef_of(config)
    reference = Reference(load_policy(case.other_dir, CPU).eval().requires_grad_(False), kl_coef) if kl_coef else None
    metrics = update_policy(
        policy,
        optimizer,
        PromptEncoder(processor, SYSTEM),
        batch.prompts,
        _responses(batch, processor),
        batch.advantages,
        config.loss if isinstance(config, AlignmentConfig) else config.algorithm,
        temperature=config.rollout.temperature,
        vocabulary=vocabulary,
        micro_batch_size=3,
        reference=reference,
    )
    return Outcome(metrics, optimizer.gradients, {name: one.detach().clone() for name, one in policy.named_parameters()})


def kl_coef_of(config: RlvrConfig | AlignmentConfig) -> float:
    return config.kl_coef if isinstance(config, RlvrConfig) else 0.0


class _Watched(StageOptimizer):
    def step(self) -> dict[str, float]:
        self.gradients = {name: one.grad.clone() for name, one in self._parameters.items() if one.grad is not None}
        return super().step()


def _responses(batch: Batch, processor: Any) -> Responses:
    ids, mask = pad_right(batch.token_ids, processor.tokenizer.pad_token_id)
    size = len(batch.token_ids) // len(batch.prompts)
    return Responses(ids, mask, torch.arange(len(ids)) // size, torch.ones(len(ids), dtype=torch.bool))


def by_engine_verl(cases: dict[str, Case], folder: Path, world: int) -> dict[str, Outcome]:
    """On `world` real ranks over gloo, each with its share of the responses; one process group for all cases."""
    torch.save(cases, folder / "in.pt")
    spawn_ranks(_rank, world, folder)
    return {name: torch.load(folder / f"{name}.pt", weights_only=False) for name in cases}


def _rank(rank: int, world: int, folder: Path) -> None:
    os.environ["DIST_INIT_METHOD"] = f"file://{folder}/store"  # a port chosen now may be another's when verl has been imported
    for name, case in torch.load(folder / "in.pt", weights_only=False).items():
        outcome = _update(case, folder / name, rank, world)
        if rank == 0:
            torch.save(outcome, folder / f"{name}.pt")


def _update(case: Case, folder: Path, rank: int, world: int) -> Outcome | None:
    from verl.utils import tensordict_utils

    from prism_trainer.engines.verl.alignment_trainer import AlignmentTrainer
    from prism_trainer.engines.verl.trainer import PrismTrainer

    folder.mkdir(exist_ok=True)
    config = case.config
    verl = composed(config, case.base_dir, world, case.verl, case.device)
    module, name = case.worker
    worker = getattr(importlib.import_module(module), name)(verl.actor_rollout_ref, role="actor")
    worker.init_model()
    trainer = AlignmentTrainer if isinstance(config, AlignmentConfig) else PrismTrainer
    worker.set_loss_fn(trainer.policy_loss(SimpleNamespace(stage=config)))
    gradients, readings = _watch(worker.actor.engine)
    rows = _rows(case.base_dir, case.other_dir, config, case.batch)
    share = rows[rank * len(rows) // world : (rank + 1) * len(rows) // world]
    data = as_transferred(share)
    tensordict_utils.assign_non_tensor(
        data,
        calculate_entropy=True,
        global_batch_size=len(rows),
        mini_batch_size=len(rows),
        epochs=1,
        seed=0,
        dataloader_kwargs={"shuffle": False},
        temperature=config.rollout.temperature,
    )
    told = tensordict_utils.get(worker.update_actor(data), "metrics")
    worker.write_weights(str(folder / "policy"))
    worker.write_optimizer(str(folder / "policy.safetensors"))
    if rank:
        return None
    weights = {name: one.detach() for name, one in load_policy(folder / "policy", CPU).named_parameters()}
    metrics = {f"actor/{name}": float(value[0]) for name, value in told.items() if name in ("loss", "entropy", "kl", "grad_norm")}
    return Outcome(metrics, gradients, weights, tuple(readings))


def composed(
    config: RlvrConfig | AlignmentConfig, base_dir: Path, world: int, others: Mapping[str, Any] = MappingProxyType({}), device: str = "cpu"
) -> Any:
    """verl's configuration for the stage on `world` ranks of one machine."""
    from prism_trainer.engines.verl.composition import compose_verl
    from prism_trainer.engines.verl.overrides import Site, alignment_overrides, rlvr_overrides

    overrides: Any = alignment_overrides if isinstance(config, AlignmentConfig) else rlvr_overrides
    return compose_verl({**overrides(job_of(config), config, Site(device, 1, world, str(base_dir))), **others})


def reference_log_probs(base_dir: Path, other_dir: Path, config: RlvrConfig, batch: Batch, folder: Path) -> list[Tensor]:
    """Of the responses, by a reference that was started from `base_dir` and told to be `other_dir`."""
    torch.save((config, batch), folder / "in.pt")
    torch.multiprocessing.spawn(_reference, (base_dir, other_dir, folder), nprocs=1)
    return torch.load(folder / "out.pt")


def _reference(rank: int, base_dir: Path, other_dir: Path, folder: Path) -> None:
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "DIST_INIT_METHOD": f"file://{folder}/store"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    config, batch = torch.load(folder / "in.pt", weights_only=False)

    from verl.utils import tensordict_utils
    from verl.workers.utils.padding import no_padding_2_padding

    from prism_trainer.engines.verl.policy_worker import PolicyWorker

    verl = composed(config, base_dir, 1)
    worker = PolicyWorker(verl.actor_rollout_ref, role="ref")
    worker.init_model()
    worker.hold_to(str(other_dir))
    data = as_transferred(_rows(base_dir, other_dir, config, batch))
    tensordict_utils.assign_non_tensor(data, calculate_entropy=False, compute_loss=False, temperature=config.rollout.temperature)
    told = worker.compute_ref_log_prob(data)
    padded = no_padding_2_padding(told["log_probs"], data)
    torch.save([row[: len(ids)] for row, ids in zip(padded, batch.token_ids, strict=True)], folder / "out.pt")


def _watch(engine: Any) -> tuple[dict[str, Tensor], list[int]]:
    """Fill with gradients as they are before the optimizer's step, and the number of prompts of each micro-batch."""
    gradients: dict[str, Tensor] = {}
    readings: list[int] = []
    step, prompts = engine.optimizer_step, getattr(engine, "_prompts", None)

    def optimizer_step() -> float:
        for name, one in engine.module.named_parameters():
            if one.grad is not None:
                gradients[name] = one.grad.full_tensor().cpu().clone()
        return step()

    def counted(micro_batch: Any) -> Any:
        found = prompts(micro_batch)
        readings.append(len(found[0].token_ids_PT))
        return found

    engine.optimizer_step = optimizer_step
    if prompts:
        engine._prompts = counted
    return gradients, readings


def _rows(base_dir: Path, other_dir: Path, config: RlvrConfig | AlignmentConfig, batch: Batch) -> list[dict[str, Any]]:
    from verl.utils.config import omega_conf_to_dataclass

    from prism_trainer.engines.verl.rollout_worker import response_tensors

    verl = composed(config, base_dir, 1)
    processor = omega_conf_to_dataclass(verl.actor_rollout_ref.model).processor
    encoded = PromptEncoder(processor, SYSTEM).encode(batch.prompts)
    size = len(batch.token_ids) // len(batch.prompts)

    rows = [response_tensors(encoded[number // size], ids, None) for number, ids in enumerate(batch.token_ids)]
    held = held_log_probs(other_dir, config, batch) if kl_coef_of(config) else None
    for number, row in enumerate(rows):
        row["advantages"] = batch.advantages[number].reshape(1)
        if held is not None:
            row["ref_log_prob"] = held[number, : len(batch.token_ids[number])]
    return rows


def as_transferred(rows: list[dict[str, Any]]) -> Any:
    """As TransferQueue hands them over: ragged, also where all lengths are one."""
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    data = list_of_dict_to_tensordict(rows)
    for name in RAGGED & rows[0].keys():
        data[name] = torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)
    return data


def held_log_probs(other_dir: Path, config: RlvrConfig | AlignmentConfig, batch: Batch) -> Tensor:
    """Log-probabilities of another policy."""
    policy, processor = load_policy(other_dir, CPU).eval(), load_processor(other_dir)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, CPU)
    encoder, responses = PromptEncoder(processor, SYSTEM), _responses(batch, processor)
    with torch.no_grad():
        return score_tokens(
            policy,
            encoder.collate(batch.prompts),
            responses.prompt_R,
            responses.token_ids_RT,
            responses.mask_RT,
            config.rollout.temperature,
            vocabulary,
            encoder.image_token_id,
        ).log_probs_RT
