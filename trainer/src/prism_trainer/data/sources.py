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
    """A row as the file has it, and where that is. Rows count from 0; blank lines of a .jsonl are no rows."""

    uri: str
    index: int
    columns: dict[str, Any]

    @property
    def id(self) -> str:
        """Unique among all sources of a stage: by the address as written, because two folders may hold files of the same name."""
        return f"{self.uri}:{self.index}"

    @property
    def folder(self) -> Path:
        """What the paths in a row are relative to."""
        return Path(self.uri).parent

    def fail(self, column: str, sentence: str) -> DataError:
        return DataError(f"data set '{self.uri}', row {self.index}, column '{column}': {sentence}")

    def text(self, column: str) -> str:
        value = self.columns.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(column, f"found {describe(value)}, expected text; correct or remove the row")
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
            raise DataError(f"data set '{file}', row {count - 1}: found {describe(columns)}, expected an object; correct the row")
        yield RawRow(source.uri, count - 1, columns)
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
        content = json.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise _unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"data set '{file}' is not JSON: {error}; write it as a list of objects") from error
    if not isinstance(content, list):
        raise DataError(f"data set '{file}' holds {describe(content)}, expected a list of objects; use .jsonl for one object a line")
    yield from content


def _read_jsonl(file: Path) -> Iterator[Any]:
    """Lines are split as bytes and decoded one by one, so that a broken character is blamed on its own row."""
    try:
        with file.open("rb") as lines:
            for index, line in enumerate(line for line in lines if line.strip()):
                yield _parse_line(file, index, line)
    except OSError as error:
        raise _unreadable(file, error) from error


def _parse_line(file: Path, index: int, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"data set '{file}', row {index}: not JSON: {error}; correct the line") from error


def _read_parquet(file: Path) -> Iterator[Any]:
    """A corrupt page is an OSError, a corrupt string a ValueError; Arrow's own exceptions cover only the rest."""
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"data set '{file}' is not a readable parquet file: {error}; write it again") from error


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(f"data set '{file}' cannot be read: {error.strerror}; correct the stage's data[].uri or the file's permissions")


def describe(value: Any) -> str:
    """What was found, short enough for a sentence."""
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
