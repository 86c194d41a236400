"""The four formats by name, and which of them a row's columns are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prism_trainer.data.readers import demonstration, pair, taught_prompt, verifiable_prompt
from prism_trainer.data.rows import Demonstration, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.sources import RawRow
from prism_trainer.errors import DataError

AnyRow = Demonstration | TaughtPrompt | VerifiablePrompt


@dataclass(frozen=True)
class Format:
    """`told_by` is a column that none of those after it in FORMATS has."""

    name: str
    stages: str
    told_by: tuple[str, ...]
    read: Callable[[RawRow], AnyRow]


FORMATS = {
    one.name: one
    for one in (
        Format("sharegpt", "sft", ("messages",), demonstration),
        Format("pairs", "discriminator", ("student_caption", "student_cot", "student_response"), pair),
        Format("stage-2", "discriminator, alignment", ("teacher_caption", "teacher_cot", "teacher_response"), taught_prompt),
        Format("stage-3", "rlvr, evaluation", ("reward_model", "answer"), verifiable_prompt),
    )
}


def format_of(uri: str, columns: Mapping[str, Any]) -> Format:
    """By the columns of a row; DataError where none is known."""
    for one in FORMATS.values():
        if any(column in columns for column in one.told_by):
            return one
    expected = "; ".join(f"{' or '.join(one.told_by)} ({one.name})" for one in FORMATS.values())
    raise DataError(f"data set '{uri}' has the columns {', '.join(sorted(columns)) or 'none'}, expected one of {expected}; rename them")
