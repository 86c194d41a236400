"""Verdicts on disk, by content: a line each in `verdicts.jsonl`, so that an evaluation that goes on or is repeated asks nothing twice.

Upstream goes on by the number of lines in a file that is named after the checkpoint's folder, so that two runs mix (defect D6). Here a
verdict is found by the digest of what was asked, and any number of runs may share a file.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Literal

from prism_trainer.contract.schema import digest_of
from prism_trainer.errors import StorageError

VERDICTS = "verdicts.jsonl"
WORDS = ("right", "wrong", "unclear")
Verdict = Literal["right", "wrong", "unclear"]


class VerdictStore:
    """Safe on any thread. Lines are appended whole, so that another process may append to the same file."""

    def __init__(self, folder: Path) -> None:
        self._file, self._lock = folder / VERDICTS, threading.Lock()
        self._verdicts: dict[str, Verdict] = {}
        self._ends_whole = True
        self._read()

    @staticmethod
    def key(*asked: Any) -> str:
        return digest_of(asked)

    def __contains__(self, key: str) -> bool:
        return key in self._verdicts

    def __getitem__(self, key: str) -> Verdict:
        return self._verdicts[key]

    def add(self, key: str, verdict: Verdict) -> None:
        line = json.dumps({"asked": key, "verdict": verdict}) + "\n"
        with self._lock:
            self._verdicts[key] = verdict
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a") as file:
                    file.write(line if self._ends_whole else f"\n{line}")
            except OSError as error:
                raise StorageError(f"verdicts cannot be written to '{self._file}' ({error}); correct that and run again") from error
            self._ends_whole = True

    def _read(self) -> None:
        """Lines that are none, as a kill leaves one, are asked again."""
        try:
            content = self._file.read_text(errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"verdicts '{self._file}' cannot be read ({error}); correct config.judge.cache") from error
        self._ends_whole = content.endswith("\n") or not content
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                if entry["verdict"] in WORDS:
                    self._verdicts[str(entry["asked"])] = entry["verdict"]
            except (ValueError, KeyError, TypeError):
                continue
