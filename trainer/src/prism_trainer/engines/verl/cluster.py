"""The Ray cluster a stage runs on: the one it was given, or one of its own that lives as long as the stage."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import ray
import torch

from prism_trainer.contract.configs import Device
from prism_trainer.contract.fitting import CPUS_BESIDE_GPUS, CPUS_PER_GPU, cpus_needed
from prism_trainer.engines.devices import told_to_use_cpu
from prism_trainer.engines.ray_cluster import connected
from prism_trainer.errors import GangError, PrismError

LOGICAL_CPUS = 32
OBJECT_STORE_BYTES = 500_000_000
GPU_ENVIRONMENT = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "prism_trainer.engines.verl.patches",
    "TRANSFER_QUEUE_ENABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it is compiled at the engine's start, by a CUDA compiler that the image has not
    "RAY_USAGE_STATS_ENABLED": "0",
    "NCCL_DEBUG": "WARN",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


@contextlib.contextmanager
def joined(device: Device, num_cpu_workers: int = 1) -> Iterator[tuple[str, int, int]]:
    """Device (cuda, cpu), nodes with GPUs, GPUs on each. On a CPU there are `num_cpu_workers` logical ones."""
    address = os.environ.get("PRISM_RAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    kind = device_of(device, address)
    environment = {**ENVIRONMENT, **(CPU_ENVIRONMENT if kind == "cpu" else GPU_ENVIRONMENT)}
    environment |= {name: os.environ[name] for name in environment if "NCCL" in name and name in os.environ}  # the user's wins
    os.environ.update(environment)
    options = {"runtime_env": {"env_vars": environment}, "log_to_driver": True, "logging_level": "WARNING"}
    logical = {"num_cpus": LOGICAL_CPUS, "num_gpus": num_cpu_workers, "object_store_memory": OBJECT_STORE_BYTES}
    with connected(address, options, own=logical if kind == "cpu" else {}):
        yield kind, *shape_of(ray.nodes())


def device_of(asked: Device, address: str | None) -> str:
    """cuda or cpu; whoever has a Ray cluster has GPUs there, which this machine may not see."""
    if told_to_use_cpu():
        return "cpu"
    if asked != "auto":
        return asked
    return "cuda" if address or torch.cuda.is_available() else "cpu"


def shape_of(nodes: list[dict[str, Any]]) -> tuple[int, int]:
    """How many of Ray's nodes have GPUs, and how many GPUs each.

    Raises:
        PrismError: where they differ, or a node has too few CPUs: verl's reservations would wait for ever.
        GangError: where there is no GPU at all.
    """
    counts = {node["NodeID"]: (node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]}
    equipped = {name: have for name, have in counts.items() if have[0]}
    if not equipped:
        raise GangError(f"none of the {len(counts)} Ray nodes has a GPU; look at the events of the pods, or set config.device to cpu")
    gpus = {int(have[0]) for have in equipped.values()}
    if len(gpus) > 1:
        raise PrismError(
            f"the Ray nodes have {' and '.join(map(str, sorted(gpus)))} GPUs, and engine verl needs the same on each; make them equal"
        )
    each = gpus.pop()
    needed = cpus_needed(each)
    for have in equipped.values():
        if have[1] < needed:
            raise PrismError(
                f"a Ray node has {int(have[1])} CPUs for {each} GPUs, and engine verl reserves {CPUS_PER_GPU} for each and "
                f"{CPUS_BESIDE_GPUS} beside them; give the stage's pods at least {needed} CPUs"
            )
    return len(equipped), each
