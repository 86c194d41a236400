"""The rank processes of one machine. Plain Python: it also runs as a Ray actor on the nodes that have GPUs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from prism_trainer.engines.ranks.process import PARENT, VERDICT


@dataclass(frozen=True)
class Ended:
    """A rank that is no more. `verdict` is what it left in words (JSON of `process.Verdict`); empty where it was killed."""

    rank: int
    exit_code: int
    verdict: str


class Agent:
    """Starts the ranks `first_rank` and following of `world_size`, one for each GPU it may use, or `num_ranks` without any."""

    def __init__(self, first_rank: int, num_ranks: int, world_size: int, environment: dict[str, str]) -> None:
        """`environment` is added to this process's own."""
        self._first, self._count, self._world = first_rank, num_ranks, world_size
        self._environment = environment
        self._verdicts = tempfile.TemporaryDirectory(prefix="prism-ranks-")
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def ready(self) -> bool:
        """Answered when the machine has it."""
        return True

    def address(self) -> tuple[str, int]:
        """Where rank 0 can listen, if it is one of these."""
        host = "127.0.0.1" if self._world == self._count else _own_address()
        with socket.socket() as probe:
            probe.bind(("", 0))
            return host, int(probe.getsockname()[1])

    def start(self, module: str, folder: str, master: tuple[str, int]) -> None:
        """`module.main(folder)` in each process."""
        for local in range(self._count):
            rank = self._first + local
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // self._count)),
                **self._environment,
                "RANK": str(rank),
                "WORLD_SIZE": str(self._world),
                "LOCAL_RANK": str(local),
                "LOCAL_WORLD_SIZE": str(self._count),
                "MASTER_ADDR": master[0],
                "MASTER_PORT": str(master[1]),
                PARENT: str(os.getpid()),
                VERDICT: str(self._verdict_file(rank)),
            }
            # A group of its own, so that Ctrl-C reaches the driver alone, who has the ranks save; still in the driver's session
            command = [sys.executable, "-m", "prism_trainer.engines.ranks.process", module, folder]
            self._children[rank] = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, process_group=0)

    def look(self) -> list[Ended]:
        """Those that have ended."""
        codes = {rank: child.poll() for rank, child in self._children.items()}
        return [Ended(rank, code, self._read_verdict(rank)) for rank, code in codes.items() if code is not None]

    def kill(self) -> None:
        """All that still run, with what they started."""
        for child in self._children.values():
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self._verdicts.cleanup()

    def _verdict_file(self, rank: int) -> Path:
        return Path(self._verdicts.name) / f"{rank}.json"

    def _read_verdict(self, rank: int) -> str:
        file = self._verdict_file(rank)
        return file.read_text() if file.is_file() else ""


def _own_address() -> str:
    """As the other nodes see it: Ray knows it, who asked the network."""
    import ray

    return str(ray.util.get_node_ip_address())
