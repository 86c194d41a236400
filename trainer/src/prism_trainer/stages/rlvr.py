"""Stage rlvr: reinforcement learning with a verifiable reward (paper section 4.3).

Reads a policy, writes a policy. A step: groups of responses to prompts, reward 0.8 accuracy + 0.2 format, advantage relative to the
group, one on-policy update.

    grpo   clipped ratio per token, mean over tokens
    dapo   the same with another clip above, only groups with right and wrong answers, and a penalty close to the length limit
    gspo   one ratio a response, mean over responses of their token means

KL to the policy that the stage began with is optional and off, as in all three of the paper's scripts; without it no reference model is
loaded.
"""

from __future__ import annotations

import torch

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_verifiable
from prism_trainer.engines.local.drawing import Drawing
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.groups import Groups
from prism_trainer.engines.local.models import load_policy, load_processor, pick_device
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import Vocabulary
from prism_trainer.engines.local.session import Session, Trained
from prism_trainer.engines.local.update import Reference, update_policy
from prism_trainer.reporting import Reporter
from prism_trainer.rewards.verifiable import VerifiableReward, symbolic_metrics


def run(job: StageJob, config: RlvrConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    device = pick_device(config.device)
    rows = open_verifiable(job.data, known=job.resume_from is not None)

    policy = load_policy(session.start_dir("policy"), device).eval()
    processor = load_processor(session.start_dir("policy"))
    encoder = PromptEncoder(processor, job.system_prompt)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, device)
    trained = {"policy": Trained(policy, processor, StageOptimizer(policy, config.optimizer, config.steps))}
    session.restore(trained)
    reference = load_reference(session, config, device)
    drawing = Drawing(job, config, policy, encoder, vocabulary, device)

    reporter.begin(session.first_step, config.steps)
    metrics: dict[str, float] = {}
    prompts_seen = session.read_note("prompts_seen", session.first_step * config.prompts_per_step)
    for step in range(session.first_step, config.steps):
        groups, prompts_drawn, drawn_metrics = drawing.draw(rows, step, prompts_seen)
        prompts_seen += prompts_drawn
        rewards_PN, advantages_PN = groups.rewards_and_advantages(config)
        advantages = advantages_PN.flatten()
        updated = update_policy(
            policy, trained["policy"].optimizer, encoder, [row.prompt for row in groups.prompts], groups.responses, advantages,
            config.algorithm, temperature=config.rollout.temperature, vocabulary=vocabulary,
            micro_batch_size=config.micro_batch_size, reference=reference,
        )  # fmt: skip
        metrics = {**reward_metrics(groups.rewards, rewards_PN), **drawn_metrics, **updated, **symbolic_metrics()}
        metrics["response_length/mean"] = groups.responses.lengths_R.float().mean().item()
        reporter.step(step + 1, metrics)
        if step % config.dump_every == 0:
            reporter.dump(step + 1, sample_records(groups, advantages))
        session.after_step(step + 1, trained, config.steps, config.save_every, {"prompts_seen": prompts_seen})
    return session.save(config.steps, trained, final=True, metrics=metrics)


def load_reference(session: Session, config: RlvrConfig, device: torch.device) -> Reference | None:
    """The policy the stage began with, also where it goes on from a checkpoint of its own; none while its KL counts for nothing."""
    if not config.kl_coef:
        return None
    policy = load_policy(session.input_dir("policy"), device).eval()
    return Reference(policy.requires_grad_(False), config.kl_coef)


def reward_metrics(rewards: list[VerifiableReward], rewards_PN: torch.Tensor) -> dict[str, float]:
    count = len(rewards)
    return {
        "reward/mean": rewards_PN.mean().item(),
        "reward/acc_reward/mean": sum(reward.accuracy for reward in rewards) / count,
        "reward/format_reward/mean": sum(reward.format for reward in rewards) / count,
        "group/mixed_fraction": (rewards_PN.amax(dim=1) > rewards_PN.amin(dim=1)).float().mean().item(),
    }


def sample_records(groups: Groups, advantages: torch.Tensor) -> list[dict[str, object]]:
    """One record a response, for people."""
    drawn = groups.responses
    columns = zip(drawn.prompt_R.tolist(), groups.texts, groups.rewards, advantages.tolist(), drawn.lengths_R.tolist(), strict=True)
    return [
        {
            "prompt_id": groups.prompts[row].prompt.id,
            "question": groups.prompts[row].prompt.question,
            "reference": groups.prompts[row].references[0],
            "response": text,
            "score": reward.score,
            "acc_reward": reward.accuracy,
            "format_reward": reward.format,
            "advantage": advantage,
            "num_tokens": length,
        }
        for row, text, reward, advantage, length in columns
    ]
