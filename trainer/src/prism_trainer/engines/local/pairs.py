"""Pairs for the discriminator's warm-up: the teacher's response against one sampled from the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.data.order import epoch_order
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.rollout import Vocabulary, decode_responses, sample_responses
from prism_trainer.errors import DataError
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse, parse_response
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
        parsed = [parse_response(text) for text in decode_responses(encoder.tokenizer, responses)]
        pairs += [Pair(rows[row], p) for row, p in zip(responses.prompt_R.tolist(), parsed, strict=True) if p is not None]
        reporter.phase("sampling")
    if len({pair.taught.prompt.id for pair in pairs}) < 2:
        raise DataError(f"only {len(pairs)} of {len(taught)} prompts gave a student response in the right format; train sft longer first")
    return pairs


def split_pairs(pairs: Sequence[Pair], held_out_fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; all pairs of a prompt fall on one side."""
    ids = sorted({pair.taught.prompt.id for pair in pairs})
    count = min(len(ids) - 1, max(1, round(held_out_fraction * len(ids))))
    held_out = {ids[index] for index in epoch_order(len(ids), seed, "held-out", len(ids))[:count]}
    training = [pair for pair in pairs if pair.taught.prompt.id not in held_out]
    return training, [pair for pair in pairs if pair.taught.prompt.id in held_out]
