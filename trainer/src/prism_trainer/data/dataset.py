"""The rows of a stage's data sets by number, read when they are asked for: what is in memory does not grow with the sets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar, overload

import numpy as np

from prism_trainer.contract.job import DataSource
from prism_trainer.data.order import mixture_order
from prism_trainer.data.readers import demonstration, taught_prompt, verifiable_prompt
from prism_trainer.data.rows import Demonstration, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.sources import RawRow, as_row, files_of, open_table, require_rows
from prism_trainer.errors import DataError

Row = TypeVar("Row")

ROWS_AT_ONCE = 64
"""While all rows are looked at once."""


class Rows(Sequence[Row], Generic[Row]):
    """The sets of `sources` behind each other; `read` makes a row of what the file has. A slice is a list."""

    def __init__(self, sources: Sequence[DataSource], read: Callable[[RawRow], Row]) -> None:
        self._read = read
        self._weights = [source.weight for source in sources]
        self._files = [(uri, open_table(uri), number) for number, source in enumerate(sources) for uri in files_of(source)]
        self._starts = np.cumsum([0, *(len(table) for _, table, _ in self._files)])
        self.sizes = [sum(len(table) for _, table, of in self._files if of == number) for number in range(len(sources))]
        for source, size in zip(sources, self.sizes, strict=True):
            require_rows(source, size)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self._read(self.raw(index))

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def id(self, index: int) -> str:
        """Of the row's prompt, without reading it."""
        uri, _, within = self._place(index)
        return f"{uri}:{within}"

    def raw(self, index: int) -> RawRow:
        """As the file has it."""
        uri, table, within = self._place(index)
        row = as_row(uri, within, table[within])
        if isinstance(row, DataError):
            raise row
        return row

    def order(self, seed: int, place: str, count: int) -> np.ndarray:
        """The first `count` row numbers of an endless mixture of the sets by their weights; (count,) int."""
        return mixture_order(self.sizes, self._weights, seed, place, count)

    def set_of(self, index: int) -> int:
        """Number of the source the row is of."""
        return self._files[self._file(index)][2]

    @property
    def weights(self) -> list[float | None]:
        return list(self._weights)

    def require_sound(self) -> None:
        """Read every row once, or DataError for the first that cannot be. Images are decoded on all cores; Pillow lets go of the lock."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for start in range(0, len(self), ROWS_AT_ONCE):
                raw = [self.raw(index) for index in range(start, min(start + ROWS_AT_ONCE, len(self)))]
                deque(pool.map(self._read, raw), maxlen=0)

    def _file(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _place(self, index: int) -> tuple[str, Any, int]:
        number = self._file(index)
        uri, table, _ = self._files[number]
        return uri, table, int(index - self._starts[number])


def open_demonstrations(sources: Sequence[DataSource], *, known: bool = False) -> Rows[Demonstration]:
    """For sft. Each of these looks at every row once, unless they are `known` to be sound: a checkpoint was made from the same bytes."""
    return _opened(Rows(sources, demonstration), known)


def open_taught(sources: Sequence[DataSource], *, known: bool = False) -> Rows[TaughtPrompt]:
    """For the discriminator and alignment."""
    return _opened(Rows(sources, taught_prompt), known)


def open_verifiable(sources: Sequence[DataSource], *, known: bool = False) -> Rows[VerifiablePrompt]:
    """For rlvr and evaluation."""
    return _opened(Rows(sources, verifiable_prompt), known)


def require_no_weights(sources: Sequence[DataSource], stage: str) -> None:
    """Where every row is used once, a share means nothing."""
    for source in sources:
        if source.weight is not None:
            raise DataError(f"data set '{source.uri}' has weight {source.weight}, and stage '{stage}' uses every row once; leave it out")


def _opened(rows: Rows[Row], known: bool) -> Rows[Row]:
    if not known:
        rows.require_sound()
    return rows
