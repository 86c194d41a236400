"""Stage rlvr: reinforcement learning with a verifiable reward (paper section 4.3).

Reads a policy, writes a policy. GRPO: groups of responses to a prompt, reward 0.8 accuracy + 0.2 format, advantage relative to the group,
one on-policy update a step, token mean, no KL and no reference model.
"""

from __future__ import annotations

import torch

from prism_trainer.algorithms.advantages import group_normalise
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.order import epoch_order
from prism_trainer.data.readers import read_verifiable
from prism_trainer.data.rows import VerifiablePrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, pick_device
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import Responses, Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.engines.local.update import update_policy
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.verifiable import VerifiableReward, symbolic_metrics, verifiable_reward
from prism_trainer.seeds import generator_for


def run(job: StageJob, config: RlvrConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    rows = [row for source in job.data for row in read_verifiable(source)]
    order = epoch_order(len(rows), job.seed, job.stage, config.steps * config.prompts_per_step)

    policy = load_policy(session.start_dir("policy"), device).eval()
    processor = load_processor(session.start_dir("policy"))
    encoder = PromptEncoder(processor, job.system_prompt)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, device)
    trained = {"policy": Trained(policy, processor, StageOptimizer(policy, config.optimizer, config.steps))}
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
        rewards = score_responses(batch, responses, parse_complete(responses, texts), config)

        rewards_PN = torch.tensor([reward.score for reward in rewards], device=device).view(len(batch), -1)
        advantages = group_normalise(rewards_PN).flatten()
        updated = update_policy(
            policy, trained["policy"].optimizer, encoder, prompts, responses, advantages, config.algorithm,
            temperature=config.rollout.temperature, vocabulary=vocabulary, micro_batch_size=config.micro_batch_size,
        )  # fmt: skip
        metrics = {**reward_metrics(rewards, rewards_PN), **updated, "response_length/mean": responses.lengths_R.float().mean().item()}
        metrics |= symbolic_metrics()
        reporter.step(step + 1, metrics)
        if step % config.dump_every == 0:
            reporter.dump(step + 1, sample_records(batch, responses, texts, rewards, advantages))
        session.after_step(step + 1, trained, config.steps, config.save_every)
    return session.save(config.steps, trained, final=True, metrics=metrics)


def score_responses(
    batch: list[VerifiablePrompt], responses: Responses, parsed: list[ParsedResponse | None], config: RlvrConfig
) -> list[VerifiableReward]:
    return [
        verifiable_reward(one, batch[row].references, accuracy_weight=config.accuracy_weight, format_weight=config.format_weight)
        for row, one in zip(responses.prompt_R.tolist(), parsed, strict=True)
    ]


def reward_metrics(rewards: list[VerifiableReward], rewards_PN: torch.Tensor) -> dict[str, float]:
    count = len(rewards)
    return {
        "reward/mean": sum(reward.score for reward in rewards) / count,
        "reward/acc_reward/mean": sum(reward.accuracy for reward in rewards) / count,
        "reward/format_reward/mean": sum(reward.format for reward in rewards) / count,
        "group/mixed_fraction": (rewards_PN.amax(dim=1) > rewards_PN.amin(dim=1)).float().mean().item(),
    }


def sample_records(
    batch: list[VerifiablePrompt], responses: Responses, texts: list[str], rewards: list[VerifiableReward], advantages: torch.Tensor
) -> list[dict[str, object]]:
    """One record a response, for people."""
    rows = zip(responses.prompt_R.tolist(), texts, rewards, advantages.tolist(), responses.lengths_R.tolist(), strict=True)
    return [
        {
            "prompt_id": batch[row].prompt.id,
            "question": batch[row].prompt.question,
            "reference": batch[row].references[0],
            "response": text,
            "score": reward.score,
            "acc_reward": reward.accuracy,
            "format_reward": reward.format,
            "advantage": advantage,
            "num_tokens": length,
        }
        for row, text, reward, advantage, length in rows
    ]
