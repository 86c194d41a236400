"""Parquet rows by number. A column chunk cannot be entered in its middle and may hold a gigabyte of images, so the first row that is
asked for out of order has the file copied, as a stream, into small batches on disk; a row then costs reading one batch.

What is in memory meanwhile is a page or two of each column. Ours are about a megabyte; other writers look at a page's size only every
1,024 values, so that with images of 100 KB a page is 100 MB.
"""

from __future__ import annotations

import errno
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from prism_trainer.errors import DataError, StorageError

BATCH_BYTES = 2**20
"""Of what is in memory at once, about: a batch has whole rows."""
MAX_BATCH_ROWS = 256


class ParquetTable:
    """The rows of one file. The copy has no name: it goes when the process does, however that ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._copy: pyarrow.RecordBatchFileReader | None = None
        self._batch: tuple[int, Any] = (-1, None)
        with self._telling(), pyarrow.parquet.ParquetFile(file) as table:
            self._length = int(table.metadata.num_rows)
            self._batch_rows = _rows_a_batch(table.metadata)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        with self._telling():
            copy = self._copied()
            number = int(np.searchsorted(self._starts, index, side="right")) - 1
            if number != self._batch[0]:
                self._batch = number, copy.get_batch(number)
            (row,) = self._batch[1].slice(index - int(self._starts[number]), 1).to_pylist()
            return row

    def scan(self) -> Iterator[Any]:
        """Every row in order, without a copy."""
        with self._telling():
            for batch in self._batches():
                yield from batch.to_pylist()

    def _batches(self) -> Iterator[Any]:
        """Column chunks are read through a buffer and not whole, which is what pyarrow does by itself; pages that have a checksum by it."""
        with pyarrow.parquet.ParquetFile(self._file, buffer_size=BATCH_BYTES, pre_buffer=False, page_checksum_verification=True) as table:
            yield from table.iter_batches(batch_size=self._batch_rows, use_threads=False)

    def _copied(self) -> pyarrow.RecordBatchFileReader:
        if self._copy is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the table
            weakref.finalize(self, file.close)
            starts = [0]
            with pyarrow.ipc.new_file(pyarrow.PythonFile(file, "w"), pyarrow.parquet.read_schema(self._file)) as out:
                for batch in self._batches():
                    out.write_batch(batch)
                    starts.append(starts[-1] + len(batch))
            if starts[-1] != self._length:
                raise ValueError(f"{starts[-1]} rows found, {self._length} announced")
            file.flush()
            self._starts = np.asarray(starts[:-1])
            self._copy = pyarrow.ipc.open_file(pyarrow.PythonFile(file, "r"))
        return self._copy

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """A corrupt page is an OSError, a corrupt string a ValueError; Arrow's own exceptions cover only the rest."""
        try:
            yield
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                place = tempfile.gettempdir()
                sentence = f"data set '{self._file}' is copied to '{place}' to be read in any order, and there is no room"
                raise StorageError(f"{sentence}; make some, or set TMPDIR to a larger disk") from error
            raise DataError(f"data set '{self._file}' is not a readable parquet file: {error}; write it again") from error


def _rows_a_batch(metadata: Any) -> int:
    size: int = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * int(metadata.num_rows) // max(1, size)))
