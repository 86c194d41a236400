"""Stage sft: full fine-tuning on teacher demonstrations, several sets mixed by weight (paper section 4.1, LLaMA-Factory's full SFT).

Reads a policy, writes a policy. The loss is the cross entropy of the response's tokens and its terminator, averaged over all response
tokens of the optimizer step, whatever the micro-batches (LLaMA-Factory averages each micro-batch by itself). A demonstration that is
too long is refused, not cut.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_demonstrations
from prism_trainer.data.rows import Demonstration
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import freeze, load_policy, load_processor, pick_device
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.sequences import TrainingBatch, collate_demonstrations
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.reporting import Reporter
from prism_trainer.seeds import seed_for


def run(job: StageJob, config: SftConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    demonstrations = open_demonstrations(job.data, known=job.resume_from is not None)
    total_steps = config.max_steps or max(1, round(config.epochs * len(demonstrations) / config.batch_size))
    order = demonstrations.order(job.seed, job.stage, total_steps * config.batch_size)

    policy = load_policy(session.start_dir("policy"), device)
    processor = load_processor(session.start_dir("policy"))
    apply_freezes(policy, config)
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
        loss, num_tokens = accumulate(policy, encoder, rows, config, device)
        metrics = {"loss": loss, **trained["policy"].optimizer.step(), "tokens_per_second": num_tokens / (time.monotonic() - started)}
        reporter.step(step + 1, metrics)
        session.after_step(step + 1, trained, total_steps, config.save_every)
    return session.save(total_steps, trained, final=True, metrics=metrics)


def apply_freezes(policy: torch.nn.Module, config: SftConfig) -> None:
    """The merger and deepstack mergers are the projector; the rest of `visual` is the vision tower."""
    visual = policy.model.visual  # type: ignore[union-attr]
    for name, parameter in visual.named_parameters():  # type: ignore[union-attr, operator]
        is_projector = name.startswith(("merger", "deepstack_merger_list"))
        parameter.requires_grad_(not (config.freeze_projector if is_projector else config.freeze_vision))
    if config.freeze_language:
        freeze(policy.model.language_model)  # type: ignore[union-attr, arg-type]
        freeze(policy.lm_head)  # type: ignore[arg-type]


def accumulate(
    policy: torch.nn.Module, encoder: PromptEncoder, rows: list[Demonstration], config: SftConfig, device: torch.device
) -> tuple[float, int]:
    """Gradients of one optimizer step; the mean loss and the number of tokens it is the mean of."""
    batches = [
        collate_demonstrations(encoder, rows[start : start + config.micro_batch_size], config.max_length).to(device)
        for start in range(0, len(rows), config.micro_batch_size)
    ]
    num_tokens = sum(int(batch.target_RT.sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = response_loss(policy, batch) / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, num_tokens


def response_loss(policy: torch.nn.Module, batch: TrainingBatch) -> Tensor:
    """Summed cross entropy of the target tokens."""
    hidden = policy.model(**batch.model_inputs()).last_hidden_state  # type: ignore[operator]
    predicts = batch.target_RT[:, 1:]
    logits = policy.lm_head(hidden[:, :-1][predicts]).float()  # type: ignore[operator]
    return functional.cross_entropy(logits, batch.token_ids_RT[:, 1:][predicts], reduction="sum")
