"""What was sampled so far, so that the same command goes on where it was interrupted, however it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prism_trainer.errors import DataError


class Journal:
    """A .jsonl file: what determines the samples, then an entry a batch of rows. A line that was cut by the end of a process is none."""

    def __init__(self, file: Path, made_from: dict[str, Any]) -> None:
        self._file = file
        whole = _whole_lines(file)
        if whole:
            _require_same(file, json.loads(whole[0]), made_from)
        self.entries: list[dict[str, Any]] = [json.loads(line) for line in whole[1:]]
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out:
            out.truncate(sum(map(len, whole)))
        if not whole:
            self._append(made_from)

    def add(self, entry: dict[str, Any]) -> None:
        """On disk when this returns."""
        self._append(entry)
        self.entries.append(entry)

    def _append(self, value: dict[str, Any]) -> None:
        with self._file.open("ab") as out:
            out.write(json.dumps(value).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())


def _whole_lines(file: Path) -> list[bytes]:
    if not file.exists():
        return []
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _require_same(file: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = [f"{name} {before.get(name)}, now {now.get(name)}" for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if changes:
        raise DataError(f"'{file}' holds samples made with {'; '.join(changes)}; restore that, give another --out, or remove the file")
