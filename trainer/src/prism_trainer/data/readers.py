"""The data sets of the paper as rows (their columns: README of the example and the paper's data cards).

sharegpt-multimodal .json/.jsonl   `messages` [{role, content}], `images` [path]                    -> Demonstration
stage-2 .parquet                   `prompt`, `images`, `teacher_response` | `teacher_caption`+`_cot` -> TaughtPrompt
stage-3 .parquet                   `prompt`, `images`, `reward_model.ground_truth`                   -> VerifiablePrompt
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from prism_trainer.contract.job import DataSource
from prism_trainer.data.rows import Demonstration, Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.sources import RawRow, read_raw
from prism_trainer.responses import parse_response

NO_EQUIVALENTS = "__EMPTY__"


def read_demonstrations(source: DataSource) -> Iterator[Demonstration]:
    """Single-turn conversations: an optional system turn, one user turn, one assistant turn."""
    for row in read_raw(source):
        turns = _turns(row, "messages")
        if "assistant" not in turns:
            raise row.fail("messages", "no assistant turn to learn from; add one or remove the row")
        yield Demonstration(_prompt(row, turns), turns["assistant"].strip())


def read_taught(source: DataSource) -> Iterator[TaughtPrompt]:
    """Prompts with a teacher's response; a response in the wrong format is refused, it could teach nothing."""
    for row in read_raw(source):
        text = row.columns.get("teacher_response") or f"{row.text('teacher_caption')}\n{row.text('teacher_cot')}"
        teacher = parse_response(text.strip())
        if teacher is None:
            raise row.fail("teacher_response", f"not <caption><think><answer> once each in this order: {text[:60]!r}; correct the row")
        yield TaughtPrompt(_prompt(row, _turns(row, "prompt")), teacher, _references(row))


def read_verifiable(source: DataSource) -> Iterator[VerifiablePrompt]:
    """Prompts with at least one reference answer."""
    for row in read_raw(source):
        references = _references(row)
        if not references:
            raise row.fail("reward_model", "no ground_truth to compare with; add one or remove the row")
        yield VerifiablePrompt(_prompt(row, _turns(row, "prompt")), references)


def _turns(row: RawRow, column: str) -> dict[str, str]:
    """Content by role. The paper's sets are single-turn; anything else is refused rather than half used."""
    messages = row.columns.get(column)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise row.fail(column, "expected a list of {role, content}; correct the row")
    turns: dict[str, str] = {}
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise row.fail(column, f"found a turn of role {role!r}; expected system, user or assistant with text; correct the row")
        if role in turns:
            raise row.fail(column, f"found two turns of role '{role}'; only single-turn conversations are read; split the row")
        turns[role] = content
    if "user" not in turns:
        raise row.fail(column, "no user turn; add one or remove the row")
    return turns


def _prompt(row: RawRow, turns: dict[str, str]) -> Prompt:
    question = turns["user"].replace("<image>", "").strip()
    images = tuple(_image(row, image) for image in row.columns.get("images") or ())
    return Prompt(f"{row.file.name}:{row.index}", question, images, turns.get("system"))


def _image(row: RawRow, image: Any) -> bytes:
    """Encoded bytes, checked to be a whole image: decoding them again later is cheap, a crash in mid-training is not."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    try:
        encoded = image if isinstance(image, bytes) else (row.file.parent / Path(image)).read_bytes()
        Image.open(io.BytesIO(encoded)).load()
    except (OSError, UnidentifiedImageError, TypeError, ValueError) as error:
        name = "embedded image" if isinstance(image, bytes) else f"image '{image}'"
        raise row.fail("images", f"{name} cannot be decoded ({error}); replace it or remove the row") from error
    return encoded


def _references(row: RawRow) -> tuple[str, ...]:
    model = row.columns.get("reward_model") or {}
    truth = model.get("ground_truth") if isinstance(model, dict) else None
    truth = row.columns.get("answer") if truth is None else truth
    equivalents = model.get("equivalent_answers") or () if isinstance(model, dict) else ()
    return tuple(str(answer) for answer in (truth, *equivalents) if answer is not None and answer != NO_EQUIVALENTS)
