"""Opening a data source: the files behind its address, their raw rows and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prism_trainer.contract.job import DataSource
from prism_trainer.data.json_tables import open_json, open_jsonl
from prism_trainer.data.parquet_table import ParquetTable
from prism_trainer.data.words import describe, unreadable
from prism_trainer.errors import DataError


class Table(Protocol):
    """The rows of one file, none of them in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """One row; DataError names it where it cannot be read."""

    def scan(self) -> Iterator[Any]:
        """Every row in order; a DataError in the place of one that cannot be read, raised where none after it can."""


READERS: dict[str, Callable[[Path], Table]] = {".json": open_json, ".jsonl": open_jsonl, ".parquet": ParquetTable}


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

    def found(self, column: str) -> str:
        """What stands in `column`, for a sentence; of a column that is not there, which ones are."""
        if column in self.columns:
            return f"found {describe(self.columns.get(column))}"
        return f"found no such column, only {', '.join(sorted(map(str, self.columns))) or 'an empty object'}"

    def fail(self, column: str, sentence: str) -> DataError:
        return DataError(f"data set '{self.uri}', row {self.index}, column '{column}': {sentence}")

    def text(self, column: str) -> str:
        value = self.columns.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(column, f"found {describe(value)}, expected text; correct or remove the row")
        return value


def files_of(source: DataSource) -> list[str]:
    """One file, those whose names a pattern with * matches, or all of a folder: then of one kind, so that none is read by accident."""
    path = Path(source.uri)
    if path.is_file():
        return [source.uri]
    if path.is_dir():
        return _of_a_folder(path)
    found = sorted(str(file) for file in path.parent.glob(path.name)) if "*" in path.name else []
    if not found:
        raise DataError(f"data set '{source.uri}' does not exist (looked for {path.absolute()}); correct the stage's data[].uri")
    return found


def _of_a_folder(folder: Path) -> list[str]:
    found = {suffix: sorted(str(file) for file in folder.rglob(f"*{suffix}")) for suffix in READERS}
    kinds = [suffix for suffix, files in found.items() if files]
    if len(kinds) != 1:
        what = "none" if not kinds else " and ".join(kinds)
        raise DataError(f"data set '{folder}' is a folder, expected files of one kind ({', '.join(READERS)}), found {what}; name a file")
    return found[kinds[0]]


def open_table(uri: str) -> Table:
    """The rows of a .json (a list), .jsonl or .parquet file."""
    file = Path(uri)
    reader = READERS.get(file.suffix)
    if reader is None:
        raise DataError(f"data set '{file}' ends in '{file.suffix}', expected one of {', '.join(READERS)}; convert or rename it")
    return reader(file)


def require_rows(source: DataSource, count: int) -> None:
    if not count:
        raise DataError(f"data set '{source.uri}' has no rows; give a file with at least one")


def scan_file(uri: str) -> Iterator[RawRow | DataError]:
    """Every row of one file, in order; in the place of one that cannot be read, why."""
    for index, columns in enumerate(open_table(uri).scan()):
        yield columns if isinstance(columns, DataError) else as_row(uri, index, columns)


def as_row(uri: str, index: int, columns: Any) -> RawRow | DataError:
    if isinstance(columns, dict):
        return RawRow(uri, index, columns)
    return DataError(f"data set '{uri}', row {index}: found {describe(columns)}, expected an object; correct the row")


def digest_sources(sources: tuple[DataSource, ...]) -> dict[str, str]:
    """`sha256:<hex>` of each file by its address, for the manifest."""
    return {uri: _digest(uri) for source in sources for uri in files_of(source)}


def _digest(uri: str) -> str:
    try:
        with Path(uri).open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(Path(uri), error) from error
