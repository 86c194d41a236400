"""JSON rows by number. One pass over the file remembers where each row lies (16 bytes a row); a row is read when it is asked for."""

from __future__ import annotations

import json
import os
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from prism_trainer.data.words import unreadable
from prism_trainer.errors import DataError

MAX_ROW_BYTES = 64 * 2**20
"""Of one row's JSON. A file without line breaks, or with an open quote, must not be read into memory whole to find that out."""
CHUNK_BYTES = 2**20
CUT_MARGIN = 16
"""Characters before the end of what was read in which a cut value misleads: of `1.` the decoder takes 1; `-Infinity` is the longest."""
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


class JsonTable:
    """Rows that lie at known places of a text file."""

    def __init__(self, file: Path, places: Iterator[tuple[int, int]]) -> None:
        self._file = file
        self._bounds = array("Q")
        try:
            for place in places:
                self._bounds.extend(place)
            self._content = file.open("rb")
            weakref.finalize(self, self._content.close)
        except OSError as error:
            raise unreadable(file, error) from error

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __getitem__(self, index: int) -> Any:
        """Decoded by itself, so that a broken character is blamed on its own row."""
        start, end = self._bounds[2 * index : 2 * index + 2]
        try:
            return json.loads(os.pread(self._content.fileno(), end - start, start).decode("utf-8"))
        except OSError as error:
            raise unreadable(self._file, error) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"data set '{self._file}', row {index}: not JSON: {error}; correct the row") from error

    def scan(self) -> Iterator[Any]:
        """Every row in order; a DataError in the place of one that cannot be read."""
        for index in range(len(self)):
            try:
                yield self[index]
            except DataError as error:
                yield error


def open_jsonl(file: Path) -> JsonTable:
    """One object a line; blank lines are no rows."""
    return JsonTable(file, _lines(file))


def open_json(file: Path) -> JsonTable:
    """One list of objects."""
    return JsonTable(file, _elements(file))


def _lines(file: Path) -> Iterator[tuple[int, int]]:
    with file.open("rb") as content:
        start = count = 0
        while line := content.readline(MAX_ROW_BYTES + 1):
            if len(line) > MAX_ROW_BYTES:
                raise _too_long(file, count)
            if line.strip():
                yield start, start + len(line)
                count += 1
            start += len(line)


def _elements(file: Path) -> Iterator[tuple[int, int]]:
    """Where the elements of the file's list lie.

    Read as latin-1, so that a character is a byte; what JSON is made of is ASCII, and text between quotes is only skipped here.
    """
    with file.open("rb") as content:
        window = _Window(file, content)
        if (first_char := window.next_char()) != "[":
            raise _no_list(file, first_char)
        window.take()
        yield from _elements_until_the_end(file, window)
        if window.next_char():
            raise _not_json(file, f"found more after the list, at byte {window.position}")


def _elements_until_the_end(file: Path, window: _Window) -> Iterator[tuple[int, int]]:
    separator = "," if window.next_char() != "]" else window.take()
    count = 0
    while separator == ",":
        window.next_char()
        yield window.element(count)
        count += 1
        separator = window.next_char() and window.take()
    if separator != "]":
        raise _not_json(file, f"expected ',' or ']' after row {count - 1}, at byte {window.position}")


class _Window:
    """The part of a file that is being looked at, from `position` on."""

    def __init__(self, file: Path, content: BinaryIO) -> None:
        self._file, self._content = file, content
        self._text, self._at, self._before = "", 0, 0

    @property
    def position(self) -> int:
        """Byte of the file."""
        return self._before + self._at

    def take(self) -> str:
        """The character at `position`, which is left behind."""
        self._at += 1
        return self._text[self._at - 1]

    def next_char(self) -> str:
        """The next one that is no white space, where `position` then is; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._read(CHUNK_BYTES):
                return ""

    def element(self, number: int) -> tuple[int, int]:
        """Bounds of the value that begins here."""
        more = CHUNK_BYTES
        while True:
            end, problem = self._decode()
            cut = len(self._text) - end < CUT_MARGIN if problem is None else self._may_be_cut(problem)
            if cut and len(self._text) - self._at <= MAX_ROW_BYTES and self._read(more):
                more *= 2
            elif problem is None:
                bounds = (self.position, self._before + end)
                self._at = end
                return bounds
            elif cut and len(self._text) - self._at > MAX_ROW_BYTES:
                raise _too_long(self._file, number)
            else:
                raise _not_json(self._file, f"row {number}: {problem}")

    def _decode(self) -> tuple[int, Exception | None]:
        """Where the value ends, if what was read is enough to tell."""
        try:
            return _DECODER.raw_decode(self._text, self._at)[1], None
        except (ValueError, RecursionError) as error:
            return self._at, error

    def _may_be_cut(self, error: Exception) -> bool:
        """Whether more of the file could make it a value after all."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text.rstrip(_SPACE)) - CUT_MARGIN

    def _read(self, size: int) -> bool:
        chunk = self._content.read(size)
        if chunk:
            self._before += self._at
            self._text = self._text[self._at :] + chunk.decode("latin-1")
            self._at = 0
        return bool(chunk)


def _no_list(file: Path, first_char: str) -> DataError:
    if not first_char:
        return _not_json(file, "it is empty")
    if first_char != "{":
        return _not_json(file, f"found '{first_char}' where a list should begin")
    return DataError(f"data set '{file}' holds one object, expected a list of objects; use .jsonl for one object a line")


def _not_json(file: Path, problem: str) -> DataError:
    return DataError(f"data set '{file}' is not JSON: {problem}; write it as a list of objects")


def _too_long(file: Path, row: int) -> DataError:
    return DataError(
        f"data set '{file}', row {row}: longer than {MAX_ROW_BYTES >> 20} MiB; give images as paths, or write the set as .parquet"
    )
