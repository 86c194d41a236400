"""Seconds and memory of a thing done on the device, written down as they come so that a crash loses nothing."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def pick_device(tiny: bool) -> torch.device:
    return torch.device("cpu" if tiny or not torch.cuda.is_available() else "cuda")


def arguments(doc: str | None, parts: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all when none is named")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, in seconds, to see that it runs")
    parser.add_argument("--out", type=Path, help="append each result as a line of JSON to this file")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]}; choose of {', '.join(parts)}")
    given.parts = given.parts or list(parts)
    return given


class Log:
    """Prints every result, and appends it to the file."""

    def __init__(self, file: Path | None, device: torch.device) -> None:
        self.file, self.device = file, device
        self.lines: list[dict[str, Any]] = []

    def write(self, what: str, **values: Any) -> None:
        line = {"what": what, **{key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}}
        self.lines.append(line)
        print(json.dumps(line), flush=True)
        if self.file:
            with self.file.open("a") as out:
                out.write(json.dumps(line) + "\n")

    def time(self, action: Callable[[], object], warm: int = 1, repeats: int = 1) -> dict[str, float]:
        """Median seconds of `repeats` runs after `warm` ones, and the highest memory in GiB of the timed ones."""
        for _ in range(warm):
            action()
        self.wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            action()
            self.wait()
            taken.append(time.perf_counter() - started)
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0
        return {"seconds": sorted(taken)[len(taken) // 2], "peak_gib": peak}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
