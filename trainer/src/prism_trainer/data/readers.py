"""The data sets of the paper as rows (their columns: README of the example and the paper's data cards).

sharegpt-multimodal .json/.jsonl   `messages` [{role, content}], `images` [path]                    -> Demonstration
stage-2 .parquet                   `prompt`, `images`, `teacher_response` | `teacher_caption`+`_cot` -> TaughtPrompt
stage-3 .parquet                   `prompt`, `images`, `reward_model.ground_truth`                   -> VerifiablePrompt
"""

from __future__ import annotations

from collections.abc import Iterator

from prism_trainer.contract.job import DataSource
from prism_trainer.data.images import read_question
from prism_trainer.data.references import read_references
from prism_trainer.data.rows import Demonstration, Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.sources import RawRow, describe, read_raw
from prism_trainer.responses import ParsedResponse, parse_response

ROLES = ("system", "user", "assistant")


def read_demonstrations(source: DataSource) -> Iterator[Demonstration]:
    """Single-turn conversations: an optional system turn, one user turn, one assistant turn."""
    for row in read_raw(source):
        turns = _turns(row, "messages")
        if not turns.get("assistant", "").strip():
            raise row.fail("messages", "no assistant turn to learn from; add one or remove the row")
        yield Demonstration(_prompt(row, "messages", turns), turns["assistant"].strip())


def read_taught(source: DataSource) -> Iterator[TaughtPrompt]:
    """Prompts with a teacher's response."""
    for row in read_raw(source):
        yield TaughtPrompt(_prompt(row, "prompt", _turns(row, "prompt")), _teacher(row), read_references(row))


def read_verifiable(source: DataSource) -> Iterator[VerifiablePrompt]:
    """Prompts with at least one reference answer."""
    for row in read_raw(source):
        references = read_references(row)
        if not references:
            raise row.fail("reward_model", "no ground_truth to compare with; add one or remove the row")
        yield VerifiablePrompt(_prompt(row, "prompt", _turns(row, "prompt")), references)


def _teacher(row: RawRow) -> ParsedResponse:
    """The whole response, or its two parts where the whole is missing. In the wrong format it could teach nothing: refused."""
    if row.columns.get("teacher_response") in (None, ""):
        column, text = "teacher_caption + teacher_cot", f"{row.text('teacher_caption')}\n{row.text('teacher_cot')}"
    else:
        column, text = "teacher_response", row.text("teacher_response")
    teacher = parse_response(text.strip())
    if teacher is None:
        raise row.fail(column, f"not <caption><think><answer> once each in this order: {text[:60]!r}; correct the row")
    return teacher


def _turns(row: RawRow, column: str) -> dict[str, str]:
    """Content by role. The paper's sets are single-turn; anything else is refused rather than half used."""
    messages = row.columns.get(column)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise row.fail(column, "expected a list of {role, content}; correct the row")
    turns: dict[str, str] = {}
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise row.fail(column, f"found a turn of role {role!r}; expected {', '.join(ROLES)}; correct the row")
        if not isinstance(content, str):
            found = f"found content {describe(content)} in the turn of role '{role}'"
            raise row.fail(column, f"{found}; expected text with <image> where an image goes, not a list of parts; write it as text")
        if role in turns:
            raise row.fail(column, f"found two turns of role '{role}'; only single-turn conversations are read; split the row")
        turns[role] = content
    if "user" not in turns:
        raise row.fail(column, "no user turn; add one or remove the row")
    return turns


def _prompt(row: RawRow, column: str, turns: dict[str, str]) -> Prompt:
    question, images = read_question(row, column, turns["user"])
    return Prompt(row.id, question, images, turns.get("system"))
