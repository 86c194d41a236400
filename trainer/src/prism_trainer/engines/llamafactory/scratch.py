"""What lies where in the folder that driver and ranks share."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Scratch:
    """An absolute path."""

    folder: Path

    @property
    def data(self) -> Path:
        """What LLaMA-Factory reads: `dataset_info.json` and its file."""
        return self.folder / "data"

    @property
    def tokens(self) -> Path:
        """The same as tokens."""
        return self.folder / "tokens"

    @property
    def cache(self) -> Path:
        """Of the `datasets` library."""
        return self.folder / "cache"

    @property
    def output(self) -> Path:
        """Where the Trainer writes `checkpoint-N`."""
        return self.folder / "output"

    @property
    def resume(self) -> Path:
        """A checkpoint of ours as the Trainer expects one."""
        return self.folder / "resume"

    @property
    def zero_file(self) -> Path:
        return self.folder / "zero.json"

    def cached_bytes(self) -> int:
        """In the cache now. Another process makes, renames and removes folders in it meanwhile, which `Path.rglob` does not bear."""
        total = 0
        for place, _, names in os.walk(self.cache):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += Path(place, name).stat().st_size
        return total

    def write_arguments(self, arguments: dict[str, Any]) -> None:
        """As `llamafactory-cli train` would read them."""
        (self.folder / "sft.yaml").write_text(yaml.safe_dump(arguments, sort_keys=False))

    def read_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = yaml.safe_load((self.folder / "sft.yaml").read_text())
        return arguments

    def write_zero(self, settings: dict[str, Any]) -> None:
        self.zero_file.write_text(json.dumps(settings, indent=2))
