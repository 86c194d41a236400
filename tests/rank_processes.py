"""Real ranks on this machine: over gloo, or each on a GPU of its own."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing

ON_GPUS = "PRISM_TEST_RANKS_ON_GPUS"
"""In the environment, where each rank is to see the GPU of its number and no other, as Ray shows it to verl's workers."""


def spawn_ranks(work: Callable[..., None], world: int, *given: Any) -> None:
    """`work(rank, world, *given)` in `world` processes, each with the variables that torch.distributed reads and one thread."""
    torch.multiprocessing.spawn(_rank, (work, world, _free_port(), *given), nprocs=world)


def _free_port() -> int:
    """Below those that the system gives to anybody who asks for one: the ranks take it only when they have imported torch."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def _rank(rank: int, work: Callable[..., None], world: int, port: int, *given: Any) -> None:
    place = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if ON_GPUS in os.environ:
        os.environ |= {"CUDA_VISIBLE_DEVICES": str(rank), "LOCAL_RANK": "0"}
    torch.set_num_threads(1)
    work(rank, world, *given)
