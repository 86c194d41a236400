"""The figures as a table, and its place in the README."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from benchmarks.operator_bench.figures import Figures, Row
from benchmarks.operator_bench.machine import cpu_model, software
from benchmarks.operator_bench.sizes import Sizes

BEGIN, END = "<!-- operator: written by `python benchmarks/operator.py --write` -->", "<!-- operator: end -->"

ROWS = (
    Row(
        "M1",
        "apply accepted -> RayCluster, one at a time, p50 / p99",
        "{:.1f} / {:.1f} ms",
        ("cluster_p50", "cluster_p99"),
        "20 / 100 ms",
        (20, 100),
    ),
    Row("M1", "its writes alone, by a client that does nothing else, p50 / p99", "{:.1f} / {:.1f} ms", ("bare_p50", "bare_p99")),
    Row("M9", "KubeRay beside it: RayJob -> RayCluster, p50 / p99", "{:.1f} / {:.1f} ms", ("job_p50", "job_p99")),
    Row(
        "M2",
        "apply accepted -> all pod objects (with KubeRay), p50 / p99",
        "{:.1f} / {:.1f} ms",
        ("pods_p50", "pods_p99"),
        "60 / 250 ms",
        (60, 250),
    ),
    Row("M3", "burst of {runs} runs: admitted -> RayClusters", "{:.0f} runs/s", ("burst",), ">= 60 runs/s", (-60,)),
    Row("M3", "a burst of its writes alone, by a client that does nothing else, nobody acting on them", "{:.0f} runs/s", ("bare",)),
    Row("M9", "KubeRay beside it: burst of {jobs} RayJobs -> RayClusters", "{:.0f} jobs/s", ("job_burst",)),
    Row("M3", "wait in the operator's queue at 30 runs/s, p99 (bucket's bound)", "<= {:.3f} s", ("steady_wait_p99",), "1 s", (1,)),
    Row(
        "M4",
        "our API writes a stage transition / with the status that says the next stage runs",
        "{:.2f} / {:.2f}",
        ("transition_writes", "transition_writes_running"),
        "3 / 4",
        (3, 4),
    ),
    Row(
        "M4", "writes / other requests in {idle} s, {runs} idle runs", "{:.0f} / {:.0f}", ("idle_writes", "idle_requests"), "0 / 0", (0, 0)
    ),
    Row("M4", "CPU at {runs} idle runs, nobody asked", "{:.1f} % of a core", ("unasked_cpu",), "1 %", (1,)),
    Row("M4", "the same, {runs} stages asked for progress every 15 s", "{:.1f} % of a core", ("idle_cpu",)),
    Row("M5", "RSS at 0 / {runs} runs", "{:.0f} / {:.0f} MiB", ("rss_0", "rss_runs"), "80 / 120 MiB", (80, 120)),
    Row("M5", "RSS with {others} suspended runs beside them", "{:.0f} MiB", ("rss_many",), "350 MiB", (350,)),
    Row("M6", "SIGKILL -> all {runs} runs looked at again", "{:.1f} s", ("restart",), "3 s", (3,)),
    Row("M6", "RayClusters doubled / transitions lost ({missed} while dead)", "{:.0f} / {:.0f}", ("duplicates", "lost"), "0 / 0", (0, 0)),
    Row(
        "M7",
        "stage's end in the pod -> in the PrismRun, p50 / p99",
        "{:.0f} / {:.0f} ms",
        ("told_p50", "told_p99"),
        "p99 500 ms",
        (None, 500),
    ),
    Row(
        "M8",
        "stage's end in the pod -> next RayCluster, p50 / p99",
        "{:.0f} / {:.0f} ms",
        ("next_p50", "next_p99"),
        "p99 1000 ms",
        (None, 1000),
    ),
    Row("", "operator's CPU a run in the burst / a transition", "{:.1f} / {:.1f} ms", ("burst_cpu_ms", "transition_cpu_ms")),
)


def as_markdown(figures: Figures, sizes: Sizes, repeats: int, busy: float, minutes: float) -> str:
    """The table and what it was measured on; rows without figures are left out."""
    words = {"runs": sizes.runs, "others": 9 * sizes.runs, "jobs": sizes.jobs, "idle": f"{sizes.idle_seconds:.0f}", "missed": sizes.missed}
    lines = ["| | what | found | target | |", "| --- | --- | --- | --- | --- |"]
    for row in ROWS:
        values = [figures[name] for name in row.names if name in figures]
        if len(values) == len(row.names):
            met = {True: "yes", False: "**no**", None: ""}[row.is_met(values)]
            lines.append(f"| {row.metric} | {row.what.format(**words)} | {row.wording.format(*values)} | {row.target} | {met} |")
    return "\n".join([*lines, "", *_conditions(figures, repeats, busy, minutes)])


def write_section(readme: Path, text: str) -> None:
    """Between the markers, and nothing else. Raises ValueError where they are missing."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} lacks the lines '{BEGIN}' and '{END}', between which the table goes")
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _conditions(figures: Figures, repeats: int, busy: float, minutes: float) -> list[str]:
    loads = [value for name, value in figures.items() if name.startswith("load/")]
    disk = f"fdatasync p50 {figures['fdatasync_p50']:.1f}, p99 {figures['fdatasync_p99']:.1f} ms; etcd's own p99"
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu_model()}, everything on it: {software()}.",
        f"Medians of {repeats}, in {minutes:.0f} minutes. Other processes kept {busy:.2f} cores busy before; load average",
        f"{min(loads):.1f} to {max(loads):.1f}. Disk: {disk} <= {figures['etcd_fsync_p99']:.0f} ms.",
    ]
