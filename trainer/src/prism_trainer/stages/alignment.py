"""Stage alignment: on-policy adversarial distillation (paper section 4.2; upstream's ray_trainer.fit with dp_critic).

Reads a policy and a warmed-up discriminator, writes both. A step: draw groups of responses; the discriminator scores caption and cot of
each and learns to prefer the teacher's; the policy learns from the scores, normalised per component within its group.

    responses -> parse -> discriminator: scores (before its update) and its Bradley-Terry update, in one pass
                       -> advantages -> one on-policy update of the policy

Different from upstream: see `discriminator.spans` for what is scored and where; the scores that reward the policy and the gradient that
trains the discriminator come from the same forward pass; the teacher is scored once a prompt; the load-balancing loss stays on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prism_trainer.algorithms.advantages import alignment_advantages
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.local.adversary import AdversaryResult, update_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_policy, load_processor, pick_device, require_same_vocabulary
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import Responses, Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.engines.local.update import update_policy
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse, count_caption_items, count_think_steps
from prism_trainer.rewards.answers import answers_match
from prism_trainer.seeds import generator_for, seed_for


def run(job: StageJob, config: AlignmentConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    rows = open_taught(job.data, known=job.resume_from is not None)
    order = rows.order(job.seed, job.stage, config.steps * config.prompts_per_step)

    policy = load_policy(session.start_dir("policy"), device).eval()
    processor = load_processor(session.start_dir("policy"))
    discriminator = load_discriminator(session.start_dir("discriminator"), device)
    require_same_vocabulary(policy, discriminator)
    encoder = PromptEncoder(processor, job.system_prompt)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, device)
    scorer = Scorer(discriminator, encoder, discriminator.config.text_config.max_position_embeddings, device)
    scorer.require_readable(rows)
    trained = {
        "policy": Trained(policy, processor, StageOptimizer(policy, config.optimizer, config.steps)),
        "discriminator": Trained(discriminator, processor, StageOptimizer(discriminator, config.discriminator_optimizer, config.steps)),
    }
    session.restore(trained)

    reporter.begin(session.first_step, config.steps)
    metrics: dict[str, float] = {}
    for step in range(session.first_step, config.steps):
        batch = [rows[index] for index in order[step * config.prompts_per_step : (step + 1) * config.prompts_per_step]]
        prompts = [row.prompt for row in batch]
        generator = generator_for(job.seed, job.stage, "rollout", step)
        inputs = encoder.collate(prompts).to(device)
        responses = sample_responses(
            policy, inputs, config.rollout.group_size, config.rollout, vocabulary, generator, encoder.image_token_id
        )
        texts = decode_responses(processor.tokenizer, responses)
        parsed = parse_complete(responses, texts)

        torch.manual_seed(seed_for(job.seed, job.stage, "dropout", step))
        adversary = update_discriminator(scorer, trained["discriminator"].optimizer, batch, parsed, config)
        advantages = alignment_advantages(
            adversary.caption_PN, adversary.cot_PN, adversary.valid_PN,
            alpha=config.alpha, format_penalty=config.format_penalty, order=config.advantage,
        ).flatten()  # fmt: skip
        metrics = {**adversary.metrics, **response_metrics(batch, responses, parsed)}
        if step >= config.discriminator_only_steps:
            metrics |= update_policy(
                policy, trained["policy"].optimizer, encoder, prompts, responses, advantages, config.loss,
                temperature=config.rollout.temperature, vocabulary=vocabulary, micro_batch_size=config.micro_batch_size,
            )  # fmt: skip
        reporter.step(step + 1, metrics)
        if step % config.dump_every == 0:
            reporter.dump(step + 1, sample_records(batch, responses, texts, adversary, advantages))
        session.after_step(step + 1, trained, config.steps, config.save_every)
    return session.save(config.steps, trained, final=True, metrics=metrics)


def response_metrics(batch: Sequence[TaughtPrompt], responses: Responses, parsed: Sequence[ParsedResponse | None]) -> dict[str, float]:
    """What the responses look like; accuracy is watched here, it is not part of the reward."""
    valid = [one for one in parsed if one]
    metrics = {
        "reward/format_valid_ratio": len(valid) / len(parsed),
        "response_length/mean": responses.lengths_R.float().mean().item(),
        "structure/caption_items": sum(map(count_caption_items, valid)) / max(1, len(valid)),
        "structure/think_steps": sum(map(count_think_steps, valid)) / max(1, len(valid)),
    }
    if all(row.references for row in batch):
        right = [
            one is not None and answers_match(one.answer.of(one.text), batch[row].references)
            for row, one in zip(responses.prompt_R.tolist(), parsed, strict=True)
        ]
        metrics["reward/acc_reward/mean"] = sum(right) / len(right)
    return metrics


def sample_records(
    batch: Sequence[TaughtPrompt], responses: Responses, texts: Sequence[str], adversary: AdversaryResult, advantages: torch.Tensor
) -> list[dict[str, object]]:
    """One record a response with both of its scores (upstream dumps only their sum, defect A12)."""
    columns = zip(
        responses.prompt_R.tolist(), texts, responses.lengths_R.tolist(), adversary.caption_PN.flatten().tolist(),
        adversary.cot_PN.flatten().tolist(), adversary.valid_PN.flatten().tolist(), advantages.tolist(), strict=True,
    )  # fmt: skip
    return [
        {
            "prompt_id": batch[row].prompt.id,
            "question": batch[row].prompt.question,
            "response": text,
            "num_tokens": length,
            "format_valid": valid,
            "caption_score": caption if valid else None,
            "cot_score": cot if valid else None,
            "advantage": advantage,
            "teacher": batch[row].teacher.text,
        }
        for row, text, length, caption, cot, valid, advantage in columns
    ]
