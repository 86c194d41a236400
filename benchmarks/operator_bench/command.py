"""The command: repeats, a fresh control plane each, then medians as a table."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from benchmarks.operator_bench import measures
from benchmarks.operator_bench.api import Api
from benchmarks.operator_bench.cluster import ROOT, AuditedControlPlane, control_plane
from benchmarks.operator_bench.figures import Figures, medians
from benchmarks.operator_bench.machine import etcd_fsync_ms, fdatasync_ms, load_average, other_load
from benchmarks.operator_bench.measures import Bench
from benchmarks.operator_bench.operator_process import OperatorProcess
from benchmarks.operator_bench.sightings import Sightings
from benchmarks.operator_bench.sizes import FULL, QUICK, Sizes
from benchmarks.operator_bench.table import as_markdown, write_section

Measure = Callable[[Bench], Awaitable[Figures]]

STEPS: tuple[tuple[Measure, tuple[str, ...]], ...] = (
    (measures.empty, ("M5",)),
    (measures.one_at_a_time, ("M1", "M2")),
    (measures.jobs_one_at_a_time, ("M9",)),
    (measures.steady, ("M3",)),
    (measures.burst_of_jobs, ("M9",)),
    (measures.burst, ("M3", "M4", "M5", "M6", "M7", "M8")),
    (measures.idle, ("M4",)),
    (measures.restart, ("M6",)),
    (measures.transitions, ("M4", "M7", "M8")),
    (measures.unasked, ("M4",)),
    (measures.verify, ("M6",)),
    (measures.many, ("M5",)),
    (measures.bare, ("M1", "M3")),
)
"""What is measured, and for which metrics."""
ONCE = (measures.idle, measures.unasked, measures.many)
"""In the last repeat only: they take long, and there is nothing in them that varies."""


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    sizes = QUICK if arguments.quick else FULL
    sizes = replace(sizes, runs=arguments.runs or sizes.runs, idle_seconds=arguments.idle or sizes.idle_seconds)
    only = set(arguments.only.split(",")) if arguments.only else set()
    started, busy = time.monotonic(), other_load()
    print(f"other processes keep {busy:.2f} cores busy; load average {load_average():.2f}", flush=True)
    repeats: list[Figures] = []
    num_repeats = arguments.repeats or (1 if arguments.quick else 3)
    for number in range(1, num_repeats + 1):
        print(f"repeat {number}", flush=True)
        steps = [measure for measure in _chosen(only) if measure not in ONCE or number == num_repeats]
        with control_plane() as plane:
            repeats.append(asyncio.run(_repeat(plane, sizes, steps)))
    text = as_markdown(medians(repeats), sizes, len(repeats), busy, (time.monotonic() - started) / 60)
    print(text)
    if arguments.write:
        write_section(ROOT / "benchmarks/README.md", text)
    return 0


def _chosen(only: set[str]) -> list[Measure]:
    return [measure for measure, metrics in STEPS if not only or only & set(metrics)]


async def _repeat(plane: AuditedControlPlane, sizes: Sizes, steps: list[Measure]) -> Figures:
    figures: Figures = {}
    figures["fdatasync_p50"], figures["fdatasync_p99"] = fdatasync_ms(plane.dir)
    async with Api.open(plane.kubeconfig()) as api, Sightings.watch(api) as seen:
        operator = OperatorProcess.of(plane)
        bench = Bench(plane, api, operator, seen, sizes)
        plane.processes.start("progress", [sys.executable, "-m", "benchmarks.operator_bench.progress_server"], {"PYTHONPATH": str(ROOT)})
        operator.start()
        await operator.until_ready()
        for measure in steps:
            figures |= await _step(bench, measure)
    figures["etcd_fsync_p99"] = etcd_fsync_ms(plane.etcd_port)
    return figures


async def _step(bench: Bench, measure: Measure) -> Figures:
    started = time.monotonic()
    found = await measure(bench)
    load = load_average()
    words = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    print(f"  {measure.__name__:20} {time.monotonic() - started:5.0f} s  load {load:4.1f}  {words}", flush=True)
    while bench.notes:
        print(f"      {bench.notes.pop(0)}", flush=True)
    return {**found, f"load/{measure.__name__}": load}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python benchmarks/operator.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, once: whether it works, not how fast it is")
    parser.add_argument("--only", default="", metavar="M1,M3", help="these metrics, and what they stand on")
    parser.add_argument("--repeats", type=int, help="3, with --quick 1")
    parser.add_argument("--runs", type=int, help="PrismRuns alive at once: 1000, with --quick 100")
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="how long nothing happens: 330, with --quick 20")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    return parser
