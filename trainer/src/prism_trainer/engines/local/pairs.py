"""Pairs for the discriminator's warm-up: the teacher's response against one sampled from the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.data.order import epoch_order
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.rollout import Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.errors import DataError, Stopped
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse
from prism_trainer.seeds import generator_for

SAMPLED_AT_ONCE = 256


@dataclass(frozen=True)
class Pair:
    """A teacher's and a student's response to one prompt."""

    taught: TaughtPrompt
    student: ParsedResponse


def sample_pairs(
    policy: PreTrainedModel,
    encoder: PromptEncoder,
    taught: Sequence[TaughtPrompt],
    config: DiscriminatorConfig,
    seed: int,
    reporter: Reporter,
) -> list[Pair]:
    """`students_per_prompt` responses to each prompt; one in the wrong format makes no pair."""
    policy.eval()
    vocabulary = Vocabulary.of(encoder.tokenizer, policy.config.text_config.vocab_size, policy.device)
    pairs: list[Pair] = []
    size = max(1, SAMPLED_AT_ONCE // config.students_per_prompt)
    for start in range(0, len(taught), size):
        rows = taught[start : start + size]
        prompts = encoder.collate([row.prompt for row in rows]).to(policy.device)
        generator = generator_for(seed, "students", start)
        responses = sample_responses(
            policy, prompts, config.students_per_prompt, config.student_sampling, vocabulary, generator, encoder.image_token_id
        )
        parsed = parse_complete(responses, decode_responses(encoder.tokenizer, responses))
        pairs += [Pair(rows[row], p) for row, p in zip(responses.prompt_R.tolist(), parsed, strict=True) if p is not None]
        reporter.phase("sampling")
        if reporter.stop_requested:
            raise Stopped(None)
    return pairs


def split_prompts(taught: Sequence[TaughtPrompt], held_out_fraction: float, seed: int) -> set[str]:
    """Ids of the prompts kept out of training.

    Chosen before anything is sampled, so that the split is the same whatever the policy answers, in every attempt and every run.
    """
    ids = sorted({row.prompt.id for row in taught})
    if len(ids) < 2:
        raise DataError(f"{len(ids)} prompt with a teacher response is not enough to train on one and measure on another; give more data")
    count = min(len(ids) - 1, max(1, round(held_out_fraction * len(ids))))
    return {ids[index] for index in epoch_order(len(ids), seed, "held-out", len(ids))[:count]}


def split_pairs(pairs: Sequence[Pair], held_out: set[str]) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; all pairs of a prompt fall on one side."""
    sides = [pair for pair in pairs if pair.taught.prompt.id not in held_out], [pair for pair in pairs if pair.taught.prompt.id in held_out]
    if not all(sides):
        raise DataError(
            f"only {len(pairs)} student responses in the right format: {len(sides[0])} to train on and {len(sides[1])} to measure; "
            "train sft longer first, or give more data"
        )
    return sides
