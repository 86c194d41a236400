"""Writing the four formats, row by row. What is written reads back as the same rows.

A file appears under its name when it is whole. Parquet is written in row groups of about 16 MiB: one group of a gigabyte, as some
released sets have, is more than a viewer will open.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

from prism_trainer.data.rows import Demonstration, Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.template import user_turn
from prism_trainer.errors import DataError
from prism_trainer.responses import ParsedResponse

GROUP_BYTES = 16 * 2**20
GROUP_ROWS = 1024
PAGE_ROWS = 16
"""Between two looks at a page's size: whoever reads has a page in memory, and by default it is 1,024 images."""
IMAGES = "images"
"""Folder beside a file that gives its images by path."""
ROUTE = "mm_gad"
"""What upstream's rewards know these rows by."""

_TURNS = pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()}))
_IMAGES = pyarrow.list_(pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))
_REWARD = pyarrow.struct(
    {"ground_truth": pyarrow.string(), "style": pyarrow.string(), "equivalent_answers": pyarrow.list_(pyarrow.string())}
)
_PROMPT = {"data_source": pyarrow.string(), "prompt": _TURNS, "images": _IMAGES, "answer": pyarrow.string(), "reward_model": _REWARD}
TAUGHT = pyarrow.schema(_PROMPT | {name: pyarrow.string() for name in ("teacher_caption", "teacher_cot", "teacher_response")})
VERIFIABLE = pyarrow.schema(_PROMPT)
FILTERED = pyarrow.schema(_PROMPT | {"pass_rate": pyarrow.float64()})


def write_demonstrations(file: Path, rows: Iterable[Demonstration]) -> int:
    """sharegpt-multimodal, .json or .jsonl, images beside it; how many rows."""
    if file.suffix not in (".json", ".jsonl"):
        raise DataError(f"'{file}' ends in '{file.suffix}', expected .json or .jsonl; rename it")
    begin, between, end = ("[\n", ",\n", "\n]\n") if file.suffix == ".json" else ("", "\n", "\n")
    count = 0
    with _appearing(file) as partial, partial.open("w", encoding="utf-8") as out:
        out.write(begin)
        for count, row in enumerate(rows, start=1):
            turns = [*_turns(row.prompt), {"role": "assistant", "content": row.response}]
            line = {"messages": turns, "images": [save_image(file.parent, image) for image in row.prompt.images]}
            out.write((between if count > 1 else "") + json.dumps(line, ensure_ascii=False))
        out.write(end)
    return count


def write_taught(file: Path, rows: Iterable[TaughtPrompt]) -> int:
    """Stage 2: embedded images, the teacher's parts with their tags, and the whole."""
    return write_parquet(file, TAUGHT, map(_taught_columns, rows))


def write_verifiable(file: Path, rows: Iterable[VerifiablePrompt]) -> int:
    """Stage 3: embedded images and the answers that count as right."""
    return write_parquet(file, VERIFIABLE, map(verifiable_columns, rows))


def write_pairs(file: Path, rows: Iterable[TaughtPrompt]) -> int:
    """Warm-up pairs, a line each, images beside it."""
    count = 0
    with _appearing(file) as partial, partial.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(pair_columns(row, file.parent), ensure_ascii=False) + "\n")
            count += 1
    return count


def verifiable_columns(row: VerifiablePrompt) -> dict[str, Any]:
    return _prompt_columns(row.prompt, row.references, row.data_source or ROUTE)


def pair_columns(row: TaughtPrompt, folder: Path) -> dict[str, Any]:
    """One line of a pair set; its images are saved below `folder`. The system prompt is not part of the format."""
    if row.student is None:
        raise DataError(f"prompt '{row.prompt.id}' has no student's response, so it is no pair; sample one first")
    images = [save_image(folder, image) for image in row.prompt.images]
    columns: dict[str, Any] = {"id": row.prompt.id, "image": images[0] if len(images) == 1 else images, "question": row.prompt.question}
    columns |= _parts("teacher", row.teacher) | _parts("student", row.student)
    return columns | ({"reward_model": _reward(row.references)} if row.references else {})


def save_image(folder: Path, image: bytes) -> str:
    """Below `folder` under a name made of its content; the path relative to it."""
    kind = (Image.open(io.BytesIO(image)).format or "png").lower()
    path = f"{IMAGES}/{hashlib.sha256(image).hexdigest()[:24]}.{kind}"
    file = folder / path
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        partial.write_bytes(image)
        partial.replace(file)
    return path


def write_parquet(file: Path, schema: pyarrow.Schema, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with (
        _appearing(file) as partial,
        pyarrow.parquet.ParquetWriter(partial, schema, write_batch_size=PAGE_ROWS, write_page_checksum=True) as out,
    ):
        for group in _groups(rows):
            out.write_table(pyarrow.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(image["bytes"]) for image in row["images"])
        if size >= GROUP_BYTES or len(group) == GROUP_ROWS:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _appearing(file: Path) -> Iterator[Path]:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    yield partial
    partial.replace(file)


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    return [*system, {"role": "user", "content": user_turn(prompt.question, len(prompt.images))}]


def _prompt_columns(prompt: Prompt, references: tuple[str, ...], data_source: str) -> dict[str, Any]:
    return {
        "data_source": data_source,
        "prompt": _turns(prompt),
        "images": [{"bytes": image, "path": None} for image in prompt.images],
        "answer": references[0] if references else None,
        "reward_model": _reward(references),
    }


def _reward(references: tuple[str, ...]) -> dict[str, Any] | None:
    if not references:
        return None
    return {"ground_truth": references[0], "style": "rule", "equivalent_answers": list(references[1:])}


def _taught_columns(row: TaughtPrompt) -> dict[str, Any]:
    return _prompt_columns(row.prompt, row.references, ROUTE) | _parts("teacher", row.teacher)


def _parts(writer: str, response: ParsedResponse) -> dict[str, str]:
    return {
        f"{writer}_caption": response.caption_block.of(response.text),
        f"{writer}_cot": response.cot_block.of(response.text),
        f"{writer}_response": response.text,
    }
