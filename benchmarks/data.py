"""How fast data sets are read, and in how much memory, on sets that are made for it.

    python benchmarks/data.py [--gigabytes 1.5] [--only FORMAT ...] [--folder DIR] [--write]

Each format once, each in a process of its own: rows a second and peak resident memory of one pass that reads every row and decodes
every image (what a stage does before its first step, and what `prism data check` does), and of rows in shuffled order. A row has an
image of about 150 KB, noise of 256 x 192 pixels as PNG, and a response of 2 KB. The naive way, a list of all rows, is measured on the
stage-3 set for comparison.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from prism_trainer.contract.job import DataSource
from prism_trainer.data.dataset import Rows
from prism_trainer.data.formats import FORMATS
from prism_trainer.data.rows import Demonstration, Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.writers import write_demonstrations, write_pairs, write_taught, write_verifiable
from prism_trainer.responses import parse_response

SIZE = (256, 192)
WORDS = "the length of the left side is twice that of the right " * 36
RESPONSE = f"<caption>\n- a figure\n- numbers\n</caption>\n<think>\n{WORDS}\n</think>\n<answer>\n7\n</answer>"
SHUFFLED = 2000
LISTED_GB = 4  # above this a list of all rows may not fit the machine, which is what it shows
SETS = {
    "sharegpt": ("set.json", lambda prompt: Demonstration(prompt, RESPONSE), write_demonstrations),
    "stage-2": ("taught.parquet", lambda prompt: TaughtPrompt(prompt, parse_response(RESPONSE), ("7",)), write_taught),
    "stage-3": ("verifiable.parquet", lambda prompt: VerifiablePrompt(prompt, ("7",)), write_verifiable),
    "pairs": ("pairs.jsonl", lambda prompt: TaughtPrompt(prompt, parse_response(RESPONSE), ("7",), parse_response(RESPONSE)), write_pairs),
}
README = Path(__file__).with_name("README.md")
MARK = re.compile(r"(?<=<!-- data: written by `python benchmarks/data.py --write` -->\n).*?(?=<!-- data: end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.5, help="of each set (default: 1.5)")
    parser.add_argument(
        "--only", nargs="+", choices=SETS, default=list(SETS), metavar="FORMAT", help=f"of {', '.join(SETS)} (default: all)"
    )
    parser.add_argument("--folder", type=Path, help="where the sets are made (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, file, how = arguments.measure
        print(json.dumps(measure(name, file, how)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        table = "\n".join(lines(Path(folder), arguments.gigabytes, arguments.only))
    print(table)
    if arguments.write:
        README.write_text(MARK.sub(f"\n{table}\n\n", README.read_text()))


def lines(folder: Path, gigabytes: float, names: list[str]) -> Iterator[str]:
    """One format after the other, so that there is room for one."""
    yield "| format | rows | GB | whole pass, rows/s | peak MB | shuffled, rows/s | peak MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    num_rows = int(gigabytes * 1e9 / len(noise(0)))
    for name in names:
        file_name, row, write = SETS[name]
        place = folder / name
        write(place / file_name, (row(Prompt(str(n), f"What is the length of side {n}?", (noise(n),))) for n in range(num_rows)))
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e9
        results = [child(name, place / file_name, how) for how in ("scan", "shuffled")]
        cells = " | ".join(f"{one['rate']:,.0f} | {one['peak']:,.0f}" for one in results)
        yield f"| {name} ({file_name.split('.')[1]}) | {num_rows:,} | {size:.2f} | {cells} |"
        if name == "stage-3" and gigabytes <= LISTED_GB:
            plain = child(name, place / file_name, "list")
            yield f"| the same as a list of rows | {num_rows:,} | {size:.2f} | {plain['rate']:,.0f} | {plain['peak']:,.0f} | - | - |"
        for file in place.rglob("*.*"):
            file.unlink()


def noise(number: int) -> bytes:
    """A picture that nothing compresses, the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def child(name: str, file: Path, how: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, str(file), how]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout)


def measure(name: str, file: str, how: str) -> dict[str, float]:
    started = time.monotonic()
    rows = Rows([DataSource(uri=file)], FORMATS[name].read)
    count = len(rows)
    if how == "scan":
        rows.require_sound()
    elif how == "list":
        kept = [rows[index] for index in range(len(rows))]
        count = len(kept)
    else:
        rows[0]  # the copy of a parquet file is made
        started = time.monotonic()
        count = sum(1 for index in islice(rows.order(0, "bench", SHUFFLED), SHUFFLED) if rows[int(index)])
    return {"rate": count / (time.monotonic() - started), "peak": peak_megabytes()}


def peak_megabytes() -> float:
    """Of this program; ru_maxrss also knows what the process was before it became this program."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


if __name__ == "__main__":
    main()
