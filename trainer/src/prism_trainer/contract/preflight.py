"""What is looked at before a stage begins on several GPUs, and what was found: `preflight.json` in the attempt's report folder."""

from __future__ import annotations

from pydantic import Field

from prism_trainer.contract.environments import Environment
from prism_trainer.contract.report import FailureClass
from prism_trainer.contract.schema import Frozen

PREFLIGHT = "preflight.json"
SWITCH = "PRISM_PREFLIGHT"
"""Environment variable of a stage: `off` leaves the preflight out."""


class PreflightRequest(Frozen):
    """`python -m prism_trainer.preflight REQUEST.json`."""

    ray_address: str = Field(description="Of the Ray cluster; `local` starts one for this machine.")
    environment: Environment = Field(description="Whose libraries must be there, in the pinned versions.")
    num_nodes: int = Field(1, ge=1, description="Ray nodes.")
    gpus_per_node: int = Field(0, ge=0, description="GPUs on each; 0 leaves out what concerns GPUs.")
    storage_dir: str = Field(description="Folder that all nodes read and write.")
    report_file: str = Field(description="Where the report goes.")
    weights_bytes: int = Field(0, ge=0, description="Size of the models that the stage reads; checkpoints are a multiple of it.")
    on_cpu: bool = Field(False, description="Ray's GPUs are only counted, for tests: gloo in place of NCCL, and no GPU is looked at.")
    node_seconds: float = Field(300.0, gt=0, description="For what is measured on each node by itself, its libraries' import included.")
    all_reduce_seconds: float = Field(180.0, gt=0, description="For each all-reduce, until all ranks have done it.")
    visible_seconds: float = Field(75.0, gt=0, description="Until what one node wrote is seen by the others; NFS caches for up to 60 s.")


class GpuFacts(Frozen):
    """One GPU."""

    index: int = Field(ge=0)
    name: str = Field(description="Product.")
    total_bytes: int = Field(ge=0)
    free_bytes: int = Field(ge=0, description="As CUDA says before anything of ours is on it but a context.")
    matmul_tflops: float = Field(0.0, ge=0, description="4096 x 4096 in bf16, after a warm-up.")
    conv3d_ms: float = Field(0.0, ge=0, description="Patch embedding of Qwen3-VL as Conv3d, forward and backward, bf16, 4096 patches.")
    linear_ms: float = Field(0.0, ge=0, description="The same as a matrix product.")
    conv3d_error: float = Field(
        0.0, ge=0, description="Largest difference of the two gradients of the weight, relative to the largest value."
    )
    problem: str = Field("", description="What CUDA said, where it failed.")


class DiskFacts(Frozen):
    """One file system."""

    path: str
    total_bytes: int = Field(ge=0)
    free_bytes: int = Field(ge=0)


class NodeFacts(Frozen):
    """What a node found out about itself."""

    node: str = Field(description="Address.")
    cpus: int = Field(0, ge=0, description="As Ray counts them.")
    driver: str = Field("", description="Version of NVIDIA's driver, where there is one.")
    cuda: str = Field("", description="Version of CUDA that torch was built with.")
    gpus: tuple[GpuFacts, ...] = ()
    disks: tuple[DiskFacts, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict, description="Of the pinned libraries.")
    locked_memory: str = Field("", description="A sentence where network cards are there and memory for them cannot be locked.")
    problem: str = Field("", description="Why it could not be looked at.")


class StorageFacts(Frozen):
    """Written, renamed and read by every node."""

    path: str
    seconds: float = Field(0.0, ge=0, description="Until every node saw what every other wrote.")
    unseen: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="By reader, the writers whose files it did not see.")
    problems: dict[str, str] = Field(default_factory=dict, description="By node, why it could not write.")


class AllReduceFacts(Frozen):
    """One sum over GPUs."""

    nodes: tuple[str, ...]
    ranks: int = Field(ge=1)
    backend: str = Field(description="nccl or gloo.")
    bytes: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0, description="The slowest rank's mean of several, after a warm-up.")
    bus_gb_per_s: float = Field(
        0.0, ge=0, description="2 (n-1)/n of the bytes by the seconds: what each link carried, as nccl-tests has it."
    )
    problem: str = Field("", description="Why it did not end.")


class Finding(Frozen):
    """What is not as it must be."""

    failure_class: FailureClass
    sentence: str


class PreflightReport(Frozen):
    """All of it."""

    checked_at: str = Field(description="UTC, RFC 3339.")
    seconds: float = Field(ge=0)
    nodes: tuple[NodeFacts, ...]
    storage: StorageFacts
    all_reduce: tuple[AllReduceFacts, ...] = ()
    skipped: tuple[str, ...] = Field((), description="What was left out, and why.")
    warnings: tuple[str, ...] = ()
    failures: tuple[Finding, ...] = ()
