"""Stage sft: full fine-tuning on teacher demonstrations, several sets mixed by weight (paper section 4.1, LLaMA-Factory's full SFT).

Reads a policy, writes a policy. The loss is the cross entropy of the response's tokens and its terminator, averaged over all response
tokens of the optimizer step, whatever the micro-batches (LLaMA-Factory averages each micro-batch by itself). A demonstration that is
too long is refused, not cut. On a GPU the rows of a micro-batch lie in one packed row (`prism_trainer.packed`), in bf16; on a CPU, where
demonstrations of even length gain nothing by it, they are padded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_demonstrations
from prism_trainer.data.rows import Demonstration
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import apply_freezes, load_policy, load_processor, pick_device
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.sequences import TrainingBatch, collate_demonstrations
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.packed.learning import learn_packed
from prism_trainer.reporting import Reporter
from prism_trainer.seeds import seed_for


def run(job: StageJob, config: SftConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    demonstrations = open_demonstrations(job.data, known=job.resume_from is not None)
    total_steps = count_steps(config, len(demonstrations))
    order = demonstrations.order(job.seed, job.stage, total_steps * config.batch_size)

    policy = load_policy(session.start_dir("policy"), device)
    processor = load_processor(session.start_dir("policy"))
    apply_freezes(policy, config)
    if device.type == "cuda":
        learn_packed(policy)
    encoder = PromptEncoder(processor, job.system_prompt)
    trained = {"policy": Trained(policy, processor, StageOptimizer(policy, config.optimizer, total_steps))}
    session.restore(trained)

    policy.train()
    reporter.begin(session.first_step, total_steps)
    metrics: dict[str, float] = {}
    for step in range(session.first_step, total_steps):
        started = time.monotonic()
        rows = [demonstrations[index] for index in order[step * config.batch_size : (step + 1) * config.batch_size]]
        torch.manual_seed(seed_for(job.seed, job.stage, "dropout", step))
        loss, num_tokens = accumulate(policy, collate(encoder, rows, config, device), packed=device.type == "cuda")
        metrics = {"loss": loss, **trained["policy"].optimizer.step(), "tokens_per_second": num_tokens / (time.monotonic() - started)}
        reporter.step(step + 1, metrics)
        session.after_step(step + 1, trained, total_steps, config.save_every)
    return session.save(total_steps, trained, final=True, metrics=metrics)


def count_steps(config: SftConfig, num_rows: int) -> int:
    return config.max_steps or max(1, round(config.epochs * num_rows / config.batch_size))


def collate(encoder: PromptEncoder, rows: list[Demonstration], config: SftConfig, device: torch.device) -> list[TrainingBatch]:
    """The micro-batches of one optimizer step."""
    return [
        collate_demonstrations(encoder, rows[start : start + config.micro_batch_size], config.max_length).to(device)
        for start in range(0, len(rows), config.micro_batch_size)
    ]


def accumulate(policy: torch.nn.Module, batches: Sequence[TrainingBatch], *, packed: bool = False) -> tuple[float, int]:
    """Gradients of one optimizer step; the mean loss and the number of tokens it is the mean of. `packed` wants `learn_packed`."""
    num_tokens = sum(int(batch.target_RT.sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = (_packed_loss if packed else _padded_loss)(policy, batch) / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, num_tokens


def _packed_loss(policy: torch.nn.Module, batch: TrainingBatch) -> Tensor:
    """Summed cross entropy of the target tokens."""
    device = batch.token_ids_RT.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        return policy(batch.token_ids_RT, batch.mask_RT, batch.target_RT, batch.pixel_values, batch.image_grid_thw)  # type: ignore[no-any-return]


def _padded_loss(policy: torch.nn.Module, batch: TrainingBatch) -> Tensor:
    hidden = policy.model(**batch.model_inputs()).last_hidden_state  # type: ignore[operator]
    predicts = batch.target_RT[:, 1:]
    logits = policy.lm_head(hidden[:, :-1][predicts]).float()  # type: ignore[operator]
    return functional.cross_entropy(logits, batch.token_ids_RT[:, 1:][predicts], reduction="sum")
