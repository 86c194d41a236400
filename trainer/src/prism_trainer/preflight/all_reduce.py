"""One rank of a sum over GPUs, as a Ray actor: with NCCL on GPUs, with gloo where there are none."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

GPU_BYTES = 256 * 2**20
CPU_BYTES = 4 * 2**20
ROUNDS = 5


class Rank:
    """Lives for one sum: a process that took part in one that hung is of no more use."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def meeting_point(self, address: str) -> tuple[str, int]:
        """A free port of this node; rank 0 is asked."""
        with socket.create_server(("", 0)) as server:
            return address, int(server.getsockname()[1])

    def sum_up(self, rank: int, ranks: int, address: str, port: int, seconds: float) -> dict[str, Any]:
        """Seconds of a sum and its bytes; RuntimeError where it comes out wrong."""
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
        device = torch.device("cuda", 0) if self._backend == "nccl" else torch.device("cpu")
        dist.init_process_group(
            self._backend, init_method=f"tcp://{address}:{port}", rank=rank, world_size=ranks, timeout=timedelta(seconds=seconds)
        )
        num = (GPU_BYTES if self._backend == "nccl" else CPU_BYTES) // 4
        values = torch.full((num,), float(rank + 1), device=device)
        dist.all_reduce(values)
        expected = ranks * (ranks + 1) / 2
        if not bool((values == expected).all()):
            raise RuntimeError(f"the sum over {ranks} ranks is {float(values[0]):g} and not {expected:g}")
        took = self._time(values)
        dist.destroy_process_group()
        return {"seconds": took, "bytes": num * 4}

    def _time(self, values: torch.Tensor) -> float:
        self._wait()
        dist.barrier()
        started = time.perf_counter()
        for _ in range(ROUNDS):
            dist.all_reduce(values)
        self._wait()
        return (time.perf_counter() - started) / ROUNDS

    def _wait(self) -> None:
        if self._backend == "nccl":
            torch.cuda.synchronize()


def bus_gb_per_s(num_bytes: int, ranks: int, seconds: float) -> float:
    """What each link carried: independent of the number of ranks (nccl-tests, PERFORMANCE.md)."""
    return round(2 * (ranks - 1) / ranks * num_bytes / seconds / 1e9, 2) if seconds else 0.0
