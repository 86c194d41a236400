"""Ray around a stage: the cluster it stands in (RAY_ADDRESS), or one of its own on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from prism_trainer.engines.devices import told_to_use_cpu
from prism_trainer.engines.ray_cluster import connected
from prism_trainer.errors import PrismError

OBJECT_BYTES = 256 * 2**20
"""Of shared memory: prompts under way with their images."""


@dataclass(frozen=True)
class Cluster:
    """GPUs of each node that may be used, this one's first."""

    gpus: tuple[int, ...]

    @property
    def has_gpus(self) -> bool:
        return any(self.gpus)

    def replicas(self, tensor_parallel: int) -> int:
        """As many as fit, none across nodes; one where there is no GPU."""
        if not self.has_gpus:
            return 1
        count = sum(gpus // tensor_parallel for gpus in self.gpus)
        if not count:
            raise PrismError(
                f"config.gpu.tensorParallel is {tensor_parallel}, and no machine has as many GPUs ({max(self.gpus)}); lower it"
            )
        return count


@contextmanager
def joined() -> Iterator[Cluster]:
    """A cluster that is joined already is used and left as it is."""
    if ray.is_initialized():
        yield _cluster()
        return
    with connected(os.environ.get("RAY_ADDRESS"), {"logging_level": "WARNING"}, own={"object_store_memory": OBJECT_BYTES}):
        yield _cluster()


def _cluster() -> Cluster:
    here = ray.get_runtime_context().get_node_id()
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    return Cluster(tuple(usable_gpus(node["Resources"]) for node in nodes))


def usable_gpus(resources: dict[str, float]) -> int:
    """Of a Ray node."""
    return 0 if told_to_use_cpu() else int(resources.get("GPU", 0))
