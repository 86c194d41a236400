"""Stage discriminator: sparse upcycling of the policy (or one of the two ablations), then the pairwise warm-up (paper section 3).

Reads a policy, writes a discriminator. Students are sampled from that policy; each pair of a teacher's and a student's response gives two
comparisons, caption against caption and cot against cot, and the loss is Bradley-Terry plus the router's load balance. Different from
upstream: prompts kept out of training measure the accuracy that is reported, whole pairs share one pass over the prompt's image, and
the load-balancing loss has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.discriminator.upcycle import make_discriminator
from prism_trainer.engines.comparisons import compare, measure_pairs
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_policy, load_processor, pick_device
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.pairs import Pair, sample_pairs, split_pairs, split_prompts
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.reporting import Reporter
from prism_trainer.seeds import generator_for, seed_for


def run(job: StageJob, config: DiscriminatorConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    taught = open_taught(job.data, known=job.resume_from is not None)
    policy_dir = session.input_dir("policy")
    processor = load_processor(policy_dir)
    encoder = PromptEncoder(processor, job.system_prompt)

    reporter.phase("sampling")
    policy = load_policy(policy_dir, device)
    held_out_ids = split_prompts(taught, config.held_out_fraction, job.seed)
    pairs = sample_pairs(policy, encoder, taught, config, job.seed, reporter)
    training, held_out = split_pairs(pairs, held_out_ids)
    if job.resume_from:
        model = load_discriminator(session.start_dir("discriminator"), device)
    else:
        model = make_discriminator(policy, config, generator_for(job.seed, job.stage, "upcycle")).to(device)  # type: ignore[arg-type]
    scorer = Scorer(model, encoder, config.max_length, device)
    scorer.require_readable(taught)

    pairs_per_step = config.batch_size // 2
    total_steps = count_steps(config, len(training))
    order = training.order(job.seed, job.stage, total_steps * pairs_per_step)
    trained = {"discriminator": Trained(model, processor, StageOptimizer(model, config.optimizer, total_steps))}
    session.restore(trained)

    reporter.begin(session.first_step, total_steps)
    measured = measure_pairs(scorer, held_out, config.micro_batch_size // 2)
    reporter.step(session.first_step, {**measured, **pairs.metrics})
    for step in range(session.first_step, total_steps):
        batch = [training[index] for index in order[step * pairs_per_step : (step + 1) * pairs_per_step]]
        torch.manual_seed(seed_for(job.seed, job.stage, "dropout", step))
        metrics = warm_up_step(scorer, trained["discriminator"].optimizer, batch, config)
        if (step + 1) % config.eval_every == 0 or step + 1 == total_steps:
            measured = measure_pairs(scorer, held_out, config.micro_batch_size // 2)
            metrics |= measured
        reporter.step(step + 1, metrics)
        session.after_step(step + 1, trained, total_steps, config.save_every)
    return session.save(total_steps, trained, final=True, metrics=measured)


def count_steps(config: DiscriminatorConfig, num_pairs: int) -> int:
    return config.max_steps or max(1, round(config.epochs * num_pairs / (config.batch_size // 2)))


def warm_up_step(scorer: Scorer, optimizer: StageOptimizer, batch: Sequence[Pair], config: DiscriminatorConfig) -> dict[str, float]:
    """One optimizer step on the mean over all comparisons of the batch."""
    scorer.model.train()
    totals = {"loss": 0.0, "balance_loss": 0.0, "pair_acc": 0.0}
    size = config.micro_batch_size // 2
    for start in range(0, len(batch), size):
        chunk = batch[start : start + size]
        compared = compare(scorer, chunk)
        share = len(chunk) / len(batch)
        (compared.total(config) * share).backward()  # type: ignore[no-untyped-call]
        totals["loss"] += compared.loss.item() * share
        totals["balance_loss"] += compared.balance.item() * share
        totals["pair_acc"] += compared.accuracy * share
    return {**totals, **optimizer.step()}
