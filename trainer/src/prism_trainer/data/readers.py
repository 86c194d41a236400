"""The data sets of the paper as rows (their columns: README of the trainer and the paper's data cards).

sharegpt   .json .jsonl .parquet   `messages` [{role, content}], `images`                                 -> Demonstration
stage 2    .parquet                `prompt`, `images`, `teacher_response` | `teacher_caption` + `_cot`      -> TaughtPrompt
stage 3    .parquet                `prompt`, `images`, `reward_model` {ground_truth, equivalent_answers}    -> VerifiablePrompt
pairs      .jsonl                  `question`, `image`, `teacher_caption` + `_cot`, `student_caption` + `_cot` -> TaughtPrompt

A column may come in any of the three file formats.
"""

from __future__ import annotations

from prism_trainer.data.images import read_images, read_question
from prism_trainer.data.references import read_references
from prism_trainer.data.rows import Demonstration, Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.sections import read_response
from prism_trainer.data.sources import RawRow
from prism_trainer.data.template import bare_question
from prism_trainer.data.words import describe

ROLES = ("system", "user", "assistant")
STUDENT = ("student_response", "student_caption", "student_cot")


def demonstration(row: RawRow) -> Demonstration:
    """A single-turn conversation: an optional system turn, one user turn, one assistant turn."""
    turns = _turns(row, "messages")
    if not turns.get("assistant", "").strip():
        raise row.fail("messages", "no assistant turn to learn from; add one or remove the row")
    return Demonstration(_of_turns(row, "messages", turns), turns["assistant"].strip())


def taught_prompt(row: RawRow) -> TaughtPrompt:
    """A prompt with a teacher's response, and with a student's where the row has one."""
    references = read_references(row)
    has_student = any(row.columns.get(column) not in (None, "") for column in STUDENT)
    return TaughtPrompt(
        _prompt(row),
        read_response(row, "teacher", references),
        references,
        read_response(row, "student", ()) if has_student else None,
    )


def pair(row: RawRow) -> TaughtPrompt:
    """The same, with both. Upstream drops a line that lacks a part and puts the next in the place of one it cannot read (defect B4)."""
    taught = taught_prompt(row)
    if taught.student is None:
        raise row.fail("student_caption", "found nothing, expected the student's caption; add it with student_cot, or remove the row")
    return taught


def verifiable_prompt(row: RawRow) -> VerifiablePrompt:
    """A prompt with at least one reference answer."""
    references = read_references(row)
    if not references:
        raise row.fail("reward_model", "no ground_truth to compare with; add one or remove the row")
    data_source = row.columns.get("data_source")
    return VerifiablePrompt(_prompt(row), references, data_source if isinstance(data_source, str) else None)


def _prompt(row: RawRow) -> Prompt:
    """Of turns, or of a question with its image beside it, as pair sets have it."""
    column = "question" if "question" in row.columns else "prompt"
    if column == "question" or "image" in row.columns:
        question = bare_question(row.text(column))
        if not question:
            raise row.fail(column, "no question beside the image; add one or remove the row")
        return Prompt(row.id, question, read_images(row, "image" if "image" in row.columns else "images"))
    return _of_turns(row, "prompt", _turns(row, "prompt"))


def _of_turns(row: RawRow, column: str, turns: dict[str, str]) -> Prompt:
    question, images = read_question(row, column, turns["user"])
    return Prompt(row.id, question, images, turns.get("system"))


def _turns(row: RawRow, column: str) -> dict[str, str]:
    """Content by role. The paper's sets are single-turn; anything else is refused rather than half used."""
    messages = row.columns.get(column)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise row.fail(column, f"{row.found(column)}, expected a list of {{role, content}}; correct the row")
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
