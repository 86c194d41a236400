"""Finds the images of prompts, so that a reader sees what the policy saw. An extra: whatever is in the way, the report goes without.

A prompt's id is the data file, as the stage that evaluated read it, and the row: `/data/test.parquet:17`. Where it is not there under
that name, because the stage ran elsewhere, the file of the same name among that stage's data will do.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prism_operator.report.record import RunRecord

TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
LARGEST_BYTES = 400_000
"""Of one image: the page must stay a file that can be sent around."""


def find_images(run: RunRecord, prompt_ids: Iterable[str]) -> dict[str, str]:
    """`data:` addresses by prompt; without those that cannot be had."""
    files = {Path(source.uri).name: Path(source.uri) for stage in run.of_kind("evaluation") if stage.job for source in stage.job.data}
    found = {}
    for prompt_id in prompt_ids:
        name, _, row = prompt_id.rpartition(":")
        file = Path(name) if Path(name).is_file() else files.get(Path(name).name)
        if file and row.isdecimal() and (address := _address(_read_image(file, int(row)))):
            found[prompt_id] = address
    return found


def _read_image(file: Path, row: int) -> bytes | None:
    """The first image of a row of a parquet file. pyarrow comes with the trainer; an operator alone does not have it."""
    if file.suffix != ".parquet" or not file.is_file():
        return None
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        return None
    try:
        with ParquetFile(file) as table:
            images = _column(table, row)
            return _bytes_of(images[0], file.parent) if images else None
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are among them: a damaged file has no image to show
        return None


def _column(table: Any, row: int) -> Any:
    """`images` of one row, from the one group of rows that has it."""
    for group in range(table.num_row_groups):
        num_rows = table.metadata.row_group(group).num_rows
        if row < num_rows:
            return table.read_row_group(group, columns=["images"])["images"][row].as_py()
        row -= num_rows
    return None


def _bytes_of(image: Any, folder: Path) -> bytes | None:
    """Embedded, or a path beside the file, as the trainer reads it."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    return image if isinstance(image, bytes) else (folder / image).read_bytes() if image else None


def _address(image: bytes | None) -> str | None:
    if image is None or len(image) > LARGEST_BYTES:
        return None
    kind = next((kind for start, kind in TYPES.items() if image.startswith(start)), None)
    return f"data:{kind};base64,{base64.b64encode(image).decode()}" if kind else None
