"""Our operator as a process of its own, seen from outside: its memory, its CPU time, its own counters."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from benchmarks.operator_bench.cluster import free_ports, operator_kubeconfig

from cluster.harness.commands import run
from cluster.harness.control_plane import ControlPlane

NAME = "prism-operator"
COUNTERS = ("prism_reconcile_duration_seconds_count", "prism_workqueue_depth", "prism_workqueue_wait_seconds_bucket")
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass
class OperatorProcess:
    """`prism operator`, with a service account's kubeconfig."""

    plane: ControlPlane
    metrics_port: int
    health_port: int
    kubeconfig: Path

    @classmethod
    def of(cls, plane: ControlPlane) -> OperatorProcess:
        """Its modules are compiled beforehand, as they are in the image."""
        metrics_port, health_port = free_ports(2)
        process = cls(plane, metrics_port, health_port, operator_kubeconfig(plane))
        run([sys.executable, "-c", "import prism_operator.kube.process"], env=process.compiled)
        return process

    @property
    def compiled(self) -> dict[str, str]:
        return {"PYTHONPYCACHEPREFIX": str(self.plane.dir / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}

    def start(self, progress_seconds: float = 15.0) -> None:
        environment = {
            **self.compiled,
            "KUBECONFIG": str(self.kubeconfig),
            "PRISM_METRICS_PORT": str(self.metrics_port),
            "PRISM_HEALTH_PORT": str(self.health_port),
            "PRISM_POD_NAMESPACE": "prism-system",
            "PRISM_PROGRESS_SECONDS": str(progress_seconds),
        }
        self.plane.processes.start(NAME, [sys.executable, "-m", "prism_operator", "operator"], environment)

    def kill(self) -> None:
        """By SIGKILL."""
        self.plane.processes.stop(NAME, signal.SIGKILL)

    def stop(self) -> None:
        self.plane.processes.stop(NAME)

    @property
    def pid(self) -> int:
        self.plane.processes.require(NAME)
        pid = self.plane.processes.pid(NAME)
        assert pid is not None
        return pid

    def rss_mib(self) -> float:
        """Resident memory."""
        return _kib(self.pid, "VmRSS") / 1024

    def cpu_seconds(self) -> float:
        """User and system time since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def until_ready(self, seconds: float = 60.0) -> None:
        """Its first listing is done."""
        for _ in range(int(seconds / 0.05)):
            if await self._is_ready():
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"the operator is not ready after {seconds:.0f} s")

    async def counters(self) -> dict[str, float]:
        """Of its Prometheus page, without the series of each run; sums over labels, but histograms' buckets are `name_bucket/le`."""
        page = f"http://127.0.0.1:{self.metrics_port}/metrics?{urlencode([('name[]', name) for name in COUNTERS])}"
        async with aiohttp.ClientSession() as session, session.get(page) as response:
            text = await response.text()
        found: dict[str, float] = {}
        for name, labels, value in _SAMPLE.findall(text):
            bound = re.search(r'le="([^"]+)"', labels or "")
            key = f"{name}/{bound[1]}" if bound else name
            found[key] = found.get(key, 0.0) + float(value)
        return found

    async def _is_ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.health_port}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


def _kib(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
