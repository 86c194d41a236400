"""Opening a data source: the file behind its address, its raw rows and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from prism_trainer.contract.job import DataSource
from prism_trainer.errors import DataError


@dataclass(frozen=True)
class RawRow:
    """A row as the file has it, and where that is."""

    file: Path
    index: int
    columns: dict[str, Any]

    def fail(self, column: str, sentence: str) -> DataError:
        return DataError(f"data set '{self.file}', row {self.index}, column '{column}': {sentence}")

    def text(self, column: str) -> str:
        value = self.columns.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(column, f"found {_describe(value)}, expected text; correct or remove the row")
        return value


def read_raw(source: DataSource) -> Iterator[RawRow]:
    """Rows of a .json (a list), .jsonl or .parquet file, in order."""
    file = Path(source.uri)
    if not file.is_file():
        raise DataError(f"data set '{source.uri}' does not exist (looked for {file.absolute()}); correct the stage's data[].uri")
    readers = {".json": _read_json, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(file.suffix)
    if reader is None:
        raise DataError(f"data set '{file}' ends in '{file.suffix}', expected one of {', '.join(readers)}; convert or rename it")
    count = 0
    for count, columns in enumerate(reader(file), start=1):
        if not isinstance(columns, dict):
            raise DataError(f"data set '{file}', row {count - 1}: found {_describe(columns)}, expected an object; correct the row")
        yield RawRow(file, count - 1, columns)
    if not count:
        raise DataError(f"data set '{file}' has no rows; give a file with at least one")


def digest_sources(sources: tuple[DataSource, ...]) -> dict[str, str]:
    """`sha256:<hex>` of each file by its address, for the manifest."""
    digests = {}
    for source in sources:
        try:
            with Path(source.uri).open("rb") as file:
                digests[source.uri] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"data set '{source.uri}' cannot be read: {error.strerror}; correct the stage's data[].uri") from error
    return digests


def _read_json(file: Path) -> Iterator[Any]:
    try:
        content = json.loads(file.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"data set '{file}' is not JSON: {error}; write it as a list of objects") from error
    if not isinstance(content, list):
        raise DataError(f"data set '{file}' holds {_describe(content)}, expected a list of objects; use .jsonl for one object a line")
    yield from content


def _read_jsonl(file: Path) -> Iterator[Any]:
    with file.open() as lines:
        for index, line in enumerate(lines):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"data set '{file}', row {index}: not JSON: {error}; correct the line") from error


def _read_parquet(file: Path) -> Iterator[Any]:
    try:
        table = pyarrow.parquet.ParquetFile(file)
        for batch in table.iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"data set '{file}' is not a readable parquet file: {error}; write it again") from error


def _describe(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
