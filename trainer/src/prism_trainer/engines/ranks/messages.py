"""Rank 0 appends lines to a file in the stage's scratch folder, the driver reads them; a stop is a file the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOLD, STOP = "told.jsonl", "stop"


class Teller:
    """Rank 0's end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def tell(self, what: str, **fields: Any) -> None:
        """One line, whole or not at all."""
        with (self._folder / TOLD).open("a") as file:
            file.write(json.dumps({"what": what, **fields}) + "\n")

    @property
    def stop_requested(self) -> bool:
        return (self._folder / STOP).exists()


class Listener:
    """The driver's end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = 0

    def heard(self) -> list[dict[str, Any]]:
        """Whole lines since the last call."""
        file = self._folder / TOLD
        if not file.is_file():
            return []
        with file.open("rb") as lines:
            lines.seek(self._read)
            new = lines.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def ask_to_stop(self) -> None:
        (self._folder / STOP).touch()
