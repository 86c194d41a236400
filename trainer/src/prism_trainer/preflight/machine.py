"""What one node finds out about itself, as one Ray task. Every question is answered or its `problem` told; nothing raises."""

from __future__ import annotations

import resource
import shutil
import traceback
from pathlib import Path

from prism_trainer.contract.preflight import DiskFacts, GpuFacts, NodeFacts, PreflightRequest
from prism_trainer.environment import installed_versions

CAP_IPC_LOCK = 14
NETWORK_CARDS = Path("/dev/infiniband")
DRIVER = Path("/sys/module/nvidia/version")


def look(request: PreflightRequest, node: str, cpus: int) -> NodeFacts:
    """Everything about this node alone."""
    try:
        gpus, cuda, problem = _gpus(request)
        return NodeFacts(
            node=node,
            cpus=cpus,
            driver=DRIVER.read_text().strip() if DRIVER.exists() else "",
            cuda=cuda,
            gpus=gpus,
            disks=tuple(disk for path in ("/dev/shm", "/tmp", request.storage_dir) if (disk := _disk(path))),
            versions=installed_versions(request.environment),
            locked_memory=_locked_memory(),
            problem=problem,
        )
    except Exception as error:
        traceback.print_exc()
        return NodeFacts(node=node, cpus=cpus, problem=f"{type(error).__name__}: {error}"[:300])


def _gpus(request: PreflightRequest) -> tuple[tuple[GpuFacts, ...], str, str]:
    if request.on_cpu or not request.gpus_per_node:
        return (), "", ""
    import torch

    from prism_trainer.preflight.gpus import look_at_gpus, visible_problem

    found = look_at_gpus()
    return found, torch.version.cuda or "", visible_problem(request.gpus_per_node, found)


def _disk(path: str) -> DiskFacts | None:
    """Of the nearest folder that exists."""
    for folder in (Path(path), *Path(path).parents):
        if folder.exists():
            usage = shutil.disk_usage(folder)
            return DiskFacts(path=path, total_bytes=usage.total, free_bytes=usage.free)
    return None


def _locked_memory() -> str:
    """A network card reads and writes memory that stays where it is; a process may lock it by right or within a limit."""
    if not NETWORK_CARDS.exists() or _has_capability(CAP_IPC_LOCK):
        return ""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft in (resource.RLIM_INFINITY, -1) or soft >= 2**34:
        return ""
    return f"network cards are there, and a process may lock only {soft // 1024} KiB of memory for them"


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
