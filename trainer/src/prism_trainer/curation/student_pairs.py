"""Warm-up pairs: the teacher's response of each row beside one that a student gave to the same prompt."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prism_trainer.contract.job import DataSource
from prism_trainer.curation.difficulty import Told, journal_file
from prism_trainer.curation.journal import Journal
from prism_trainer.curation.sampler import LEARNT_ELSEWHERE, Drawing, Sampler, describe_drawing
from prism_trainer.data.dataset import open_taught
from prism_trainer.data.sources import digest_sources
from prism_trainer.data.writers import pair_columns
from prism_trainer.errors import DataError


def sample_pairs(sources: Sequence[DataSource], student: Path, out: Path, drawing: Drawing, device: Any, told: Told) -> int:
    """Write a line for each of the student's responses in the right format; how many. Images lie beside `out`."""
    rows = open_taught(sources)
    made_from = {**describe_drawing(student, drawing), "data": list(digest_sources(tuple(sources)).values())}
    journal = Journal(journal_file(out), made_from)
    partial = out.with_name(f"{out.name}.partial")
    done, size, pairs = _last(journal)
    sampler = Sampler(student, drawing, device) if done < len(rows) else None
    if size > (partial.stat().st_size if partial.exists() else 0):
        raise DataError(f"'{partial}' lacks what '{journal_file(out)}' says was written to it; remove both to start over")
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as file:
        file.truncate(size)
        while sampler is not None and done < len(rows):
            batch = rows[done : done + drawing.rows_at_once]
            for row, given in zip(batch, sampler.draw([row.prompt for row in batch], done), strict=True):
                for response in filter(None, given):
                    line = pair_columns(replace(row, student=response), out.parent)
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                    pairs += 1
            file.flush()
            os.fsync(file.fileno())
            done += len(batch)
            journal.add({"rows": done, "bytes": file.seek(0, os.SEEK_END), "pairs": pairs})
            told(done, len(rows), f"{pairs:,} pairs, {done * drawing.count - pairs:,} responses in the wrong format")
    if not pairs:
        count = len(rows) * drawing.count
        raise DataError(f"none of {count} responses is in the right format; {LEARNT_ELSEWHERE}, train the student longer, or sample more")
    partial.replace(out)
    journal_file(out).unlink()
    return pairs


def _last(journal: Journal) -> tuple[int, int, int]:
    """Rows done, bytes of the output and pairs in it."""
    last = journal.entries[-1] if journal.entries else {"rows": 0, "bytes": 0, "pairs": 0}
    return last["rows"], last["bytes"], last["pairs"]
