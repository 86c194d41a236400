"""What the figures were measured on: processor, load, disk, versions."""

from __future__ import annotations

import os
import platform
import re
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

from benchmarks.operator_bench.figures import percentile

from cluster.harness import versions


def cpu_model() -> str:
    """`2 x AMD EPYC ...`."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} x {found[1] if found else platform.processor()}"


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def other_load(seconds: float = 2.0) -> float:
    """Cores that are busy before anything of ours runs."""
    before, started = _busy_ticks(), time.monotonic()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - started)


def fdatasync_ms(folder: Path, num: int = 200) -> tuple[float, float]:
    """p50 and p99 of writing 2 KiB and waiting for the disk, where etcd writes."""
    file = folder / "fdatasync.probe"
    times = []
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(num):
            started = time.perf_counter()
            os.write(descriptor, bytes(2048))
            os.fdatasync(descriptor)
            times.append(1000 * (time.perf_counter() - started))
    finally:
        os.close(descriptor)
        file.unlink()
    return percentile(times, 0.5), percentile(times, 0.99)


def etcd_fsync_ms(etcd_port: int) -> float:
    """p99 of all of etcd's writes to its log so far: the upper bound of the bucket it lies in."""
    with urllib.request.urlopen(f"http://127.0.0.1:{etcd_port}/metrics") as response:
        text = response.read().decode()
    buckets = re.findall(r'^etcd_disk_wal_fsync_duration_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    counts = {float(bound): float(count) for bound, count in buckets}
    return 1000 * min(bound for bound, count in counts.items() if count >= 0.99 * counts[float("inf")])


def software() -> str:
    """Versions of what takes part."""
    ours = ", ".join(f"{name} {version(name)}" for name in ("kopf", "kubernetes", "aiohttp", "pydantic"))
    programs = f"Kubernetes {versions.KUBERNETES}, etcd {versions.ETCD}, KubeRay {versions.KUBERAY}, kwok {versions.KWOK}"
    return f"{programs}; Python {platform.python_version()}, {ours}"


def _busy_ticks() -> int:
    """Of all cores together; waiting for the disk is not busy."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields) - fields[3] - fields[4]
