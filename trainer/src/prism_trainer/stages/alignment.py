"""Stage alignment: on-policy adversarial distillation (paper section 4.2; upstream's ray_trainer.fit with dp_critic).

Reads a policy and a warmed-up discriminator, writes both. A step: draw groups of responses; the discriminator scores caption and cot of
each and learns to prefer the teacher's; the policy learns from the scores, normalised per component within its group.

    responses -> parse -> discriminator: scores (before its update) and its Bradley-Terry update, in one pass
                       -> advantages -> one on-policy update of the policy

Optional, all off as in the paper's script: a verifiable reward beside the scores (`algorithms.reward_modes`), length correction of the
scores, first steps that train the discriminator alone, and a pause of one side while the discriminator wins (`algorithms.saturation`).

Different from upstream: see `discriminator.spans` for what is scored and where; the scores that reward the policy and the gradient that
trains the discriminator come from the same forward pass; the teacher is scored once a prompt; the load-balancing loss stays on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prism_trainer.algorithms.reward_modes import stage_advantages
from prism_trainer.algorithms.saturation import count_saturated, pauses
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.adversary import AdversaryResult, score_and_accumulate, step_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_policy, load_processor, pick_device, require_same_vocabulary
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import Responses, Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.scoring import Scorer, only_readable
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.engines.local.update import update_policy
from prism_trainer.engines.telling import require_gradable, response_metrics, sample_records
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.answers import answers_match
from prism_trainer.seeds import generator_for, seed_for


def run(job: StageJob, config: AlignmentConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    rows = open_taught(job.data, known=job.resume_from is not None)
    require_gradable(rows, config)
    order = rows.order(job.seed, job.stage, config.steps * config.prompts_per_step)
    policy, discriminator, reading = load_sides(session, config)
    reading.scorer.require_readable(rows)
    trained = {"policy": policy, "discriminator": discriminator}
    session.restore(trained)

    reporter.begin(session.first_step, config.steps)
    metrics: dict[str, float] = {}
    saturated = session.read_note("saturated_steps", 0)
    for step in range(session.first_step, config.steps):
        batch = [rows[index] for index in order[step * config.prompts_per_step : (step + 1) * config.prompts_per_step]]
        responses, texts, parsed = draw_responses(job, config, policy, reading, batch, step)
        learns = not pauses(config.saturation_guard, saturated, "discriminator")
        acts = step >= config.discriminator_only_steps and not pauses(config.saturation_guard, saturated, "policy")

        dropout = seed_for(job.seed, job.stage, "dropout", step)
        adversary = score_and_accumulate(reading.scorer, batch, parsed, config, learns=learns, seed=dropout)
        correct = grade_responses(batch, responses, parsed)
        advantages = advantages_of(config, adversary, correct).to(reading.scorer.device)
        metrics = {**adversary.metrics, **response_metrics(responses.lengths_R.tolist(), parsed, correct)}
        if learns and config.discriminator_update == "before":
            metrics |= step_discriminator(discriminator.optimizer, adversary)
        if acts:
            metrics |= step_policy(config, policy, reading, batch, responses, advantages)
        if learns and config.discriminator_update == "after":
            metrics |= step_discriminator(discriminator.optimizer, adversary)

        if config.saturation_guard:
            saturated = count_saturated(config.saturation_guard, saturated, metrics.get("critic/d_acc"))
            metrics |= {"guard/saturated_steps": saturated, "guard/discriminator_learns": float(learns), "guard/policy_learns": float(acts)}
        reporter.step(step + 1, metrics)
        if step % config.dump_every == 0:
            lengths = responses.lengths_R.tolist()
            reporter.dump(step + 1, sample_records(batch, texts, lengths, adversary, advantages.tolist(), correct))
        session.after_step(step + 1, trained, config.steps, config.save_every, {"saturated_steps": saturated})
    return session.save(config.steps, trained, final=True, metrics=metrics)


@dataclass(frozen=True)
class Reading:
    """How prompts and responses become tokens and scores, for both sides."""

    encoder: PromptEncoder
    vocabulary: Vocabulary
    scorer: Scorer


def load_sides(session: Session, config: AlignmentConfig) -> tuple[Trained, Trained, Reading]:
    """Policy and discriminator as the stage begins."""
    device = pick_device(config.device)
    policy = load_policy(session.start_dir("policy"), device).eval()
    processor = load_processor(session.start_dir("policy"))
    discriminator = load_discriminator(session.start_dir("discriminator"), device)
    require_same_vocabulary(policy, discriminator)
    encoder = PromptEncoder(processor, session.job.system_prompt)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, device)
    scorer = Scorer(discriminator, encoder, discriminator.config.text_config.max_position_embeddings, device)
    return (
        Trained(policy, processor, StageOptimizer(policy, config.optimizer, config.steps)),
        Trained(discriminator, processor, StageOptimizer(discriminator, config.discriminator_optimizer, config.steps)),
        Reading(encoder, vocabulary, scorer),
    )


def draw_responses(
    job: StageJob, config: AlignmentConfig, policy: Trained, reading: Reading, batch: Sequence[TaughtPrompt], step: int
) -> tuple[Responses, list[str], list[ParsedResponse | None]]:
    """A group for each prompt: its tokens, its texts, and the sections of those in the right format that the discriminator can read."""
    generator = generator_for(job.seed, job.stage, "rollout", step)
    inputs = reading.encoder.collate([row.prompt for row in batch]).to(reading.scorer.device)
    size, image_token_id = config.rollout.group_size, reading.encoder.image_token_id
    responses = sample_responses(policy.model, inputs, size, config.rollout, reading.vocabulary, generator, image_token_id)
    texts = decode_responses(policy.processor.tokenizer, responses)
    return responses, texts, only_readable(parse_complete(responses, texts), reading.encoder, reading.scorer.max_tokens)


def advantages_of(config: AlignmentConfig, adversary: AdversaryResult, correct: Sequence[bool] | None) -> torch.Tensor:
    """One a response."""
    correct_PN = None if correct is None else torch.tensor(correct).view_as(adversary.valid_PN)
    return stage_advantages(config, adversary.caption_PN, adversary.cot_PN, adversary.valid_PN, correct_PN).flatten()


def step_policy(
    config: AlignmentConfig,
    policy: Trained,
    reading: Reading,
    batch: Sequence[TaughtPrompt],
    responses: Responses,
    advantages: torch.Tensor,
) -> dict[str, float]:
    return update_policy(
        policy.model, policy.optimizer, reading.encoder, [row.prompt for row in batch], responses, advantages, config.loss,
        temperature=config.rollout.temperature, vocabulary=reading.vocabulary, micro_batch_size=config.micro_batch_size,
    )  # fmt: skip


def grade_responses(batch: Sequence[TaughtPrompt], responses: Responses, parsed: Sequence[ParsedResponse | None]) -> list[bool] | None:
    """Whose answer is right; None where some prompt has no reference. In mode default it is watched and rewards nobody."""
    if not all(row.references for row in batch):
        return None
    return [
        one is not None and answers_match(one.answer.of(one.text), batch[row].references)
        for row, one in zip(responses.prompt_R.tolist(), parsed, strict=True)
    ]
