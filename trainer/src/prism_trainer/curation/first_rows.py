"""What is wrong with the first row of each data set of a run, so that a set of the wrong kind is named before hours are spent.

Run as a program it reads a JSON list of {"kind": of a stage, "uri"} and prints a list of sentences, "" for a sound row.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prism_trainer.contract.job import DataSource
from prism_trainer.data.formats import FORMATS, format_of
from prism_trainer.data.readers import demonstration, taught_prompt, verifiable_prompt
from prism_trainer.data.sources import files_of, require_rows, scan_file
from prism_trainer.errors import DataError

READERS: dict[str, Any] = {
    "sft": demonstration,
    "discriminator": taught_prompt,
    "alignment": taught_prompt,
    "rlvr": verifiable_prompt,
    "evaluation": verifiable_prompt,
}


def first_row_problem(kind: str, uri: str) -> str:
    """A sentence, or nothing. Reads one row, whatever the set's size."""
    source = DataSource(uri=uri)
    try:
        row = next(scan_file(files_of(source)[0]), None)
        if isinstance(row, DataError):
            raise row
        require_rows(source, row is not None)
        assert row is not None
        try:
            READERS[kind](row)
        except DataError as error:
            raise _of_another_kind(kind, uri, row.columns) or error from error
    except DataError as error:
        return str(error)
    return ""


def _of_another_kind(kind: str, uri: str, columns: dict[str, Any]) -> DataError | None:
    """Whose set it is by its columns, where that is another stage's. Columns that no stage knows are left to the reader's own sentence."""
    try:
        found = format_of(uri, columns)
    except DataError:
        return None
    own = [one for one in FORMATS.values() if kind in one.stages.split(", ")]
    if found in own:
        return None
    has = next(column for column in found.told_by if column in columns)
    needs = " or ".join(dict.fromkeys(column for one in own for column in one.told_by))
    whose = found.stages.replace(", ", " or ")
    return DataError(f"data set '{uri}' is one for {whose} by its column '{has}'; a stage of kind {kind} reads {needs}; name another set")


if __name__ == "__main__":
    print(json.dumps([first_row_problem(one["kind"], one["uri"]) for one in json.load(sys.stdin)]))
