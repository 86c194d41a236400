"""Where a judge of the stage's own is served: by this process, or by Ray where the GPUs are Ray's.

In a pod the stage's container drives, and Ray's container beside it has the GPUs. Both have one address, so that the server is asked at
127.0.0.1 either way.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

WEIGHTS_SHARE = 0.7
"""Of the memory given to vLLM that weights may take, so that there is room for its cache."""
END_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Machine:
    """What the judge has: GPUs of one kind, and the share of their memory that is vLLM's."""

    num_gpus: int
    gpu_bytes: int
    memory_share: float

    def split(self, weight_bytes: int) -> tuple[int, int]:
        """GPUs of a replica, the fewest that hold the weights, and how many replicas that makes; one on a machine without a GPU."""
        if not self.num_gpus:
            return 1, 1
        size = 1
        while size < self.num_gpus and weight_bytes > size * self.gpu_bytes * self.memory_share * WEIGHTS_SHARE:
            size *= 2
        size = min(size, self.num_gpus)
        return size, self.num_gpus // size


class AnyHost(Protocol):
    """A `Host`, here or in Ray."""

    def machine(self, memory_share: float) -> Machine: ...

    def start(self, command: Sequence[str], environment: dict[str, str], log: Path) -> int: ...

    def exit_code(self) -> int | None: ...

    def end(self) -> None: ...


class Host:
    """Of one server."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def machine(self, memory_share: float) -> Machine:
        """This one. Asked when the GPUs are free: the question alone takes some of their memory."""
        count = torch.cuda.device_count()
        return Machine(count, torch.cuda.get_device_properties(0).total_memory if count else 0, memory_share)

    def start(self, command: Sequence[str], environment: dict[str, str], log: Path) -> int:
        """Its pid. A group of its own, to be ended whole; told to end by the kernel when this process is killed."""
        libc = ctypes.CDLL(None)
        with log.open("wb") as output:
            self._server = subprocess.Popen(
                command,
                env={"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        return self._server.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._server.poll() if self._server else None

    def end(self) -> None:
        """With all that it started. Asked first: it has GPUs to give back."""
        if self._server is None:
            return
        if self._server.poll() is None:
            self._server.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(END_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()


@contextmanager
def host() -> Iterator[AnyHost]:
    """On the cluster that RAY_ADDRESS names, all GPUs of this node; else this machine. What is still served at the end is ended."""
    if not os.environ.get("RAY_ADDRESS"):
        with _ended(Host()) as here:
            yield here
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from prism_trainer.engines.lmms.cluster import joined

    with joined() as cluster:
        place = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(Host).options(num_gpus=cluster.gpus[0], num_cpus=0, scheduling_strategy=place).remote()
        try:
            with _ended(_RayHost(actor)) as there:
                yield there
        finally:
            ray.kill(actor)


@contextmanager
def _ended(one: AnyHost) -> Iterator[AnyHost]:
    try:
        yield one
    finally:
        one.end()


class _RayHost:
    """A host that is an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def machine(self, memory_share: float) -> Machine:
        found: Machine = self._call("machine", memory_share)
        return found

    def start(self, command: Sequence[str], environment: dict[str, str], log: Path) -> int:
        return int(self._call("start", command, environment, log))

    def exit_code(self) -> int | None:
        code: int | None = self._call("exit_code")
        return code

    def end(self) -> None:
        self._call("end")

    def _call(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self._actor, method).remote(*arguments))
