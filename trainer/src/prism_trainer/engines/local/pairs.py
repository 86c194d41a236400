"""Pairs for the discriminator's warm-up: the teacher's response against a student's, from the row or sampled from the policy."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from transformers import PreTrainedModel

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.data.dataset import Rows
from prism_trainer.data.order import epoch_order, mixture_order
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.rollout import Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.scoring import only_readable
from prism_trainer.errors import DataError, Stopped
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse
from prism_trainer.seeds import generator_for

SAMPLED_AT_ONCE = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A teacher's and a student's response to one prompt."""

    taught: TaughtPrompt
    student: ParsedResponse


Students = Sequence[tuple[int, ParsedResponse | None]]
"""Each with its row; None for one in the right format that is above `maxLength`."""


class Pairs(Sequence[Pair]):
    """Students by the row they answer; the row, with its images, is read when the pair is asked for. A slice is a list.

    A student that is too long makes no pair, and is counted.
    """

    def __init__(self, taught: Rows[TaughtPrompt], students: Students) -> None:
        self.taught = taught
        self.students = tuple((row, student) for row, student in students if student is not None)
        self.num_too_long = len(students) - len(self.students)

    @property
    def metrics(self) -> dict[str, float]:
        """Of what they were made from, told with the first measurement."""
        return {"students/too_long": float(self.num_too_long)}

    def __len__(self) -> int:
        return len(self.students)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [Pair(self.taught[row], student) for row, student in self.students[index]]
        row, student = self.students[index]
        return Pair(self.taught[row], student)

    def order(self, seed: int, place: str, count: int) -> np.ndarray:
        """The first `count` pair numbers of an endless mixture, by the weights of the sets their rows are of; (count,) int."""
        sizes = Counter(self.taught.set_of(row) for row, _ in self.students)
        weights = [self.taught.weights[number] for number in sorted(sizes)]
        return mixture_order([sizes[number] for number in sorted(sizes)], weights, seed, place, count)


def sample_pairs(
    policy: PreTrainedModel,
    encoder: PromptEncoder,
    taught: Rows[TaughtPrompt],
    config: DiscriminatorConfig,
    seed: int,
    reporter: Reporter,
) -> Pairs:
    """The row's own student, else `students_per_prompt` responses to its prompt; one in the wrong format makes no pair, nor a long one."""
    policy.eval()
    students: list[tuple[int, ParsedResponse | None]] = []
    for block in student_blocks(len(taught), config):
        students += sample_block(policy, encoder, taught, block, config, seed)
        reporter.phase("sampling")
        if reporter.stop_requested:
            raise Stopped(None)
    pairs = Pairs(taught, sorted(students, key=lambda one: one[0]))
    warn_of_long(pairs.num_too_long, len(students), config)
    return pairs


def warn_of_long(num_too_long: int, num_students: int, config: DiscriminatorConfig) -> None:
    """As alignment leaves out such a student."""
    if num_too_long:
        log.warning(
            "%d of %d students' responses are above maxLength %d and left out; raise it to train on them",
            num_too_long, num_students, config.max_length,
        )  # fmt: skip


def student_blocks(num_rows: int, config: DiscriminatorConfig) -> list[range]:
    """Rows that are sampled together. What a block draws does not depend on the others: they may be drawn anywhere, in any order."""
    size = max(1, SAMPLED_AT_ONCE // config.students_per_prompt)
    return [range(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def sample_block(
    policy: PreTrainedModel, encoder: PromptEncoder, taught: Rows[TaughtPrompt], block: range, config: DiscriminatorConfig, seed: int
) -> Students:
    """Of a block's rows; those in the wrong format are left out."""
    rows = dict(zip(block, taught[block.start : block.stop], strict=True))
    students = [(number, row.student) for number, row in rows.items() if row.student is not None]
    asked = [number for number, row in rows.items() if row.student is None]
    if asked:
        vocabulary = Vocabulary.of(encoder.tokenizer, policy.config.text_config.vocab_size, policy.device)
        prompts = encoder.collate([rows[number].prompt for number in asked]).to(policy.device)
        generator = generator_for(seed, "students", block.start)
        responses = sample_responses(
            policy, prompts, config.students_per_prompt, config.student_sampling, vocabulary, generator, encoder.image_token_id
        )
        parsed = parse_complete(responses, decode_responses(encoder.tokenizer, responses))
        students += [(asked[row], p) for row, p in zip(responses.prompt_R.tolist(), parsed, strict=True) if p is not None]
    readable = only_readable([student for _, student in students], encoder, config.max_length)
    return [(row, student) for (row, _), student in zip(students, readable, strict=True)]


def split_prompts(taught: Rows[TaughtPrompt], held_out_fraction: float, seed: int) -> set[str]:
    """Ids of the prompts kept out of training.

    Chosen before anything is sampled, so that the split is the same whatever the policy answers, in every attempt and every run.
    """
    ids = sorted({taught.id(number) for number in range(len(taught))})
    if len(ids) < 2:
        raise DataError(f"{len(ids)} prompt with a teacher response is not enough to train on one and measure on another; give more data")
    count = min(len(ids) - 1, max(1, round(held_out_fraction * len(ids))))
    return {ids[index] for index in epoch_order(len(ids), seed, "held-out", len(ids))[:count]}


def split_pairs(pairs: Pairs, held_out: set[str]) -> tuple[Pairs, Pairs]:
    """Training and held-out pairs; all pairs of a prompt fall on one side."""
    sides: tuple[list[tuple[int, ParsedResponse]], list[tuple[int, ParsedResponse]]] = ([], [])
    for row, student in pairs.students:
        sides[pairs.taught.id(row) in held_out].append((row, student))
    if not all(sides):
        raise DataError(
            f"only {len(pairs)} student responses in the right format: {len(sides[0])} to train on and {len(sides[1])} to measure; "
            + (f"{pairs.num_too_long} more are above maxLength, raise it; " if pairs.num_too_long else "")
            + "train sft longer first, or give more data"
        )
    return Pairs(pairs.taught, sides[0]), Pairs(pairs.taught, sides[1])
