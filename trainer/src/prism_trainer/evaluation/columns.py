"""Values of a data set's row, each checked where it is read."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterable
from typing import Any

from PIL import Image

from prism_trainer.data.sources import RawRow
from prism_trainer.data.words import describe, why_undecodable


def text_of(row: RawRow, column: str) -> str:
    """A column that may be empty or missing; numbers as text."""
    value = row.columns.get(column)
    if value is None or value != value:
        return ""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise row.fail(column, f"found {describe(value)}, expected text; correct the row")
    return str(value).strip()


def required(row: RawRow, column: str) -> str:
    """A column that must say something."""
    text = text_of(row, column)
    if not text:
        raise row.fail(column, "found nothing, expected text; give the data set as it is published, or correct the row")
    return text


def texts_of(row: RawRow, column: str) -> tuple[str, ...]:
    """A list of texts: as a list, or as the Python list in text that MMMU has. Nothing is an empty list."""
    value: Any = row.columns.get(column)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if value.strip() else []
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise row.fail(column, f"found {describe(value)}, expected a list of texts; correct the row") from error
    if not isinstance(value, list | tuple | None.__class__):
        raise row.fail(column, f"found {describe(value)}, expected a list of texts; correct the row")
    return tuple(str(one).strip() for one in value or ())


def inner(row: RawRow, column: str, key: str) -> str:
    """A key of a column that holds an object; empty where it is missing."""
    value = row.columns.get(column)
    return str(value.get(key) or "") if isinstance(value, dict) else ""


def images_of(row: RawRow, columns: Iterable[str], *, at_least: int = 1) -> tuple[bytes, ...]:
    """The images of those columns that have one: embedded as {bytes, path}, or as a path beside the file."""
    found = tuple(_whole(row, column) for column in columns if row.columns.get(column) is not None)
    if len(found) < at_least:
        raise row.fail("/".join(columns), f"found {len(found)} images, expected at least {at_least}; give the data set as it is published")
    return found


def _whole(row: RawRow, column: str) -> bytes:
    value: Any = row.columns[column]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    try:
        encoded = value if isinstance(value, bytes) else (row.folder / value).read_bytes()
        Image.open(io.BytesIO(encoded)).load()
    except Exception as error:  # Pillow has no common base
        raise row.fail(column, f"the image cannot be decoded ({why_undecodable(error)}); replace it or remove the row") from error
    return encoded
