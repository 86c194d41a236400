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

import torch

from prism_trainer.algorithms.reward_modes import stage_advantages
from prism_trainer.algorithms.saturation import count_saturated, pauses
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.local.adversary import AdversaryResult, score_and_accumulate, step_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_policy, load_processor, pick_device, require_same_vocabulary
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import Responses, Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.engines.local.update import update_policy
from prism_trainer.errors import DataError
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse, count_caption_items, count_think_steps
from prism_trainer.rewards.answers import answers_match
from prism_trainer.seeds import generator_for, seed_for


def run(job: StageJob, config: AlignmentConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    rows = open_taught(job.data, known=job.resume_from is not None)
    require_gradable(rows, config)
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
    saturated = session.read_note("saturated_steps", 0)
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
        learns = not pauses(config.saturation_guard, saturated, "discriminator")
        acts = step >= config.discriminator_only_steps and not pauses(config.saturation_guard, saturated, "policy")
        adversary = score_and_accumulate(scorer, batch, parsed, config, learns=learns)
        correct = grade_responses(batch, responses, parsed)
        advantages = stage_advantages(
            config, adversary.caption_PN, adversary.cot_PN, adversary.valid_PN,
            None if correct is None else torch.tensor(correct, device=device).view_as(adversary.valid_PN),
        ).flatten()  # fmt: skip
        metrics = {**adversary.metrics, **response_metrics(responses, parsed, correct)}
        if learns and config.discriminator_update == "before":
            metrics |= step_discriminator(trained["discriminator"].optimizer, adversary)
        if acts:
            metrics |= update_policy(
                policy, trained["policy"].optimizer, encoder, prompts, responses, advantages, config.loss,
                temperature=config.rollout.temperature, vocabulary=vocabulary, micro_batch_size=config.micro_batch_size,
            )  # fmt: skip
        if learns and config.discriminator_update == "after":
            metrics |= step_discriminator(trained["discriminator"].optimizer, adversary)
        if config.saturation_guard:
            saturated = count_saturated(config.saturation_guard, saturated, metrics.get("critic/d_acc"))
            metrics |= {"guard/saturated_steps": saturated, "guard/discriminator_learns": float(learns), "guard/policy_learns": float(acts)}
        reporter.step(step + 1, metrics)
        if step % config.dump_every == 0:
            reporter.dump(step + 1, sample_records(batch, responses, texts, adversary, advantages, correct))
        session.after_step(step + 1, trained, config.steps, config.save_every, {"saturated_steps": saturated})
    return session.save(config.steps, trained, final=True, metrics=metrics)


def require_gradable(rows: Sequence[TaughtPrompt], config: AlignmentConfig) -> None:
    """A mode with a verifiable reward needs something to verify with."""
    if config.reward_mode == "default":
        return
    without = [row.prompt.id for row in rows if not row.references]
    if without:
        raise DataError(
            f"prompt {without[0]} has no ground_truth, and rewardMode '{config.reward_mode}' grades answers; "
            f"add one to this and {len(without) - 1} more rows, or use rewardMode 'default'"
        )


def grade_responses(batch: Sequence[TaughtPrompt], responses: Responses, parsed: Sequence[ParsedResponse | None]) -> list[bool] | None:
    """Whose answer is right; None where some prompt has no reference. In mode default it is watched and rewards nobody."""
    if not all(row.references for row in batch):
        return None
    return [
        one is not None and answers_match(one.answer.of(one.text), batch[row].references)
        for row, one in zip(responses.prompt_R.tolist(), parsed, strict=True)
    ]


def response_metrics(responses: Responses, parsed: Sequence[ParsedResponse | None], correct: Sequence[bool] | None) -> dict[str, float]:
    """What the responses look like."""
    valid = [one for one in parsed if one]
    metrics = {
        "reward/format_valid_ratio": len(valid) / len(parsed),
        "response_length/mean": responses.lengths_R.float().mean().item(),
        "structure/caption_items": sum(map(count_caption_items, valid)) / max(1, len(valid)),
        "structure/think_steps": sum(map(count_think_steps, valid)) / max(1, len(valid)),
    }
    return metrics if correct is None else {**metrics, "reward/acc_reward/mean": sum(correct) / len(correct)}


def sample_records(
    batch: Sequence[TaughtPrompt],
    responses: Responses,
    texts: Sequence[str],
    adversary: AdversaryResult,
    advantages: torch.Tensor,
    correct: Sequence[bool] | None,
) -> list[dict[str, object]]:
    """One record a response with both of its scores (upstream dumps only their sum, defect A12)."""
    columns = zip(
        responses.prompt_R.tolist(), texts, responses.lengths_R.tolist(), adversary.caption_PN.flatten().tolist(),
        adversary.cot_PN.flatten().tolist(), adversary.valid_PN.flatten().tolist(), advantages.tolist(),
        [None] * len(texts) if correct is None else correct, strict=True,
    )  # fmt: skip
    return [
        {
            "prompt_id": batch[row].prompt.id,
            "question": batch[row].prompt.question,
            "response": text,
            "num_tokens": length,
            "format_valid": valid,
            "correct": right,
            "caption_score": caption if valid else None,
            "cot_score": cot if valid else None,
            "advantage": advantage,
            "teacher": batch[row].teacher.text,
        }
        for row, text, length, caption, cot, valid, advantage, right in columns
    ]
