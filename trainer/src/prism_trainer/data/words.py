"""Words for what was found in a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from prism_trainer.errors import DataError


def describe(value: Any) -> str:
    """What was found, short enough for a sentence."""
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def why_undecodable(error: Exception) -> str:
    """Of an image; Pillow's own words for unknown content name an object's address and no more."""
    if isinstance(error, UnidentifiedImageError):
        return "its content is no image"
    if isinstance(error, FileNotFoundError):
        return f"there is no file {error.filename}"
    return str(error)


def unreadable(file: Path, error: OSError) -> DataError:
    return DataError(f"data set '{file}' cannot be read: {error.strerror}; correct the stage's data[].uri or the file's permissions")
