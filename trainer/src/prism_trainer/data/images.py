"""The images of a row: as many as the user's text announces, each checked to be whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from prism_trainer.data.sources import RawRow
from prism_trainer.data.template import IMAGE_TAG
from prism_trainer.data.words import describe, why_undecodable

WEB = ("http://", "https://")


def read_question(row: RawRow, column: str, text: str) -> tuple[str, tuple[bytes, ...]]:
    """The question without its tags, and the images. They go before the text, so a tag after text would be moved unnoticed: refused."""
    *before, question = text.split(IMAGE_TAG)
    if any(part.strip() for part in before):
        raise row.fail(
            column, f"found {IMAGE_TAG} after text in the user's turn; expected every {IMAGE_TAG} first; rewrite or remove the row"
        )
    images = _listed(row, "images")
    if before and len(before) != len(images):
        found = f"found {len(images)}" if "images" in row.columns else row.found("images")
        raise row.fail("images", f"{found}, expected {len(before)}: one for each {IMAGE_TAG} in the user's turn; correct or remove the row")
    return question.strip(), tuple(_whole_image(row, "images", image) for image in images)


def read_images(row: RawRow, column: str) -> tuple[bytes, ...]:
    """All of them, whatever the text says."""
    return tuple(_whole_image(row, column, image) for image in _listed(row, column))


def image_files(row: RawRow, column: str) -> list[Path | None]:
    """Where each image lies as a file of its own; None for one that the row holds itself."""
    paths = [image.get("path") if isinstance(image, dict) and not image.get("bytes") else image for image in _listed(row, column)]
    return [(row.folder / path).absolute() if isinstance(path, str) else None for path in paths]


def _listed(row: RawRow, column: str) -> list[Any]:
    """The column as a list; a single path, {bytes, path} or bytes is a list of one."""
    images = row.columns.get(column)
    if images is None:
        return []
    if isinstance(images, str | dict | bytes):
        return [images]
    if not isinstance(images, list):
        raise row.fail(column, f"found {describe(images)}, expected a list of paths or of {{bytes, path}}; correct the row")
    return images


def _whole_image(row: RawRow, column: str, image: Any) -> bytes:
    """Encoded bytes, decoded once to see that they can be: decoding them again later is cheap, a crash in mid-training is not."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str) and image.startswith(WEB):
        raise row.fail(column, f"'{image[:60]}' is on the web, and nothing is fetched in training; save it to a file and give its path")
    try:
        encoded = image if isinstance(image, bytes) else (row.folder / image).read_bytes()
        Image.open(io.BytesIO(encoded)).load()
    except Exception as error:  # Pillow has no common base: OSError, SyntaxError, struct.error, DecompressionBombError, ...
        name = "embedded image" if isinstance(image, bytes) else f"image '{image}'"
        raise row.fail(column, f"{name} cannot be decoded ({why_undecodable(error)}); replace it or remove the row") from error
    return encoded
