"""What a stage of engine verl needs of each machine, and what is refused because it would wait for ever or fail after hours. Pure.

Ray's CPUs are counters. verl sets three aside for each GPU, in placement groups that wait without a word where there are too few; beside
them come TransferQueue's controller, its store on each node, and one for each worker that draws answers, while it is placed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prism_operator.api import AnyStage, PrismRun, Resources
from prism_operator.plan import overlaid
from prism_operator.problems import Path, Problem
from prism_trainer.contract.environments import ON_CPU
from prism_trainer.contract.fitting import CPUS_BESIDE_GPUS, CPUS_PER_GPU, GpuNodes, cpus_needed, misfits

COUNTERS_BESIDE_GPUS = 16
"""TransferQueue's controller and this node's store are two; the rest is for actors that count only while they are placed."""
MEMORY_GIB_PER_GPU = 16
"""Asked for, and no limit, where resources.memory is not given."""
SHARED_MEMORY_GIB_PER_GPU = 8
SHARED_MEMORY_GIB = 2
"""Without GPUs."""
NO_GPUS = (
    "engine 'verl' computes on GPUs, and found 0; give their number, take engine 'local', or, to try it out with a tiny model on a CPU, "
    f'set {ON_CPU} to "1" in spec.env'
)
"""The same for every stage, so that what stands once in the run is told once."""

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def cpus_of(resources: Resources) -> int | None:
    """Cores that a pod of engine verl asks for; None where that is left to the pod's default."""
    return resources.cpus or (cpus_needed(resources.gpus_per_node) if resources.gpus_per_node else None)


def ray_cpus(resources: Resources) -> int | None:
    """What Ray is told, so that nothing waits for a counter; None: what it finds."""
    cpus = cpus_of(resources)
    return cpus + COUNTERS_BESIDE_GPUS if cpus is not None else None


def memory_of(resources: Resources) -> str | None:
    """Memory that a pod of engine verl asks for."""
    gpus = resources.gpus_per_node
    return resources.memory or (f"{MEMORY_GIB_PER_GPU * gpus}Gi" if gpus else None)


def shared_memory_of(resources: Resources) -> str:
    """Size of /dev/shm, through which Ray and NCCL pass tensors."""
    gpus = resources.gpus_per_node
    return resources.shared_memory or f"{SHARED_MEMORY_GIB_PER_GPU * gpus if gpus else SHARED_MEMORY_GIB}Gi"


def object_store_bytes(resources: Resources) -> int:
    """Half of /dev/shm. By itself Ray takes a share of the node's memory, and where /dev/shm has less than that, it goes to disk."""
    return num_bytes(shared_memory_of(resources)) // 2


def num_bytes(quantity: str) -> int:
    """Of Kubernetes' `64Gi`."""
    digits = quantity.rstrip("mkKMGTi")
    unit = quantity[len(digits) :]
    return int(float(digits) / 1000) if unit == "m" else int(float(digits) * _UNITS[unit])


def verl_problems(run: PrismRun, index: int) -> Iterator[Problem]:
    """Of one stage, for every executor; none of a stage that is skipped or has another engine."""
    stage = run.spec.stages[index]
    engine = stage.engine or run.spec.engine
    if engine != "verl" or stage.checkpoint is not None:
        return
    resources = overlaid(run.spec.resources, stage.resources)
    gpus = resources.gpus_per_node
    if not gpus and not _on_cpu(run, stage):
        yield Problem(resources_path(stage, index, "gpus_per_node"), NO_GPUS)
    if gpus and resources.cpus is not None and resources.cpus < cpus_needed(gpus):
        yield Problem(
            resources_path(stage, index, "cpus"),
            f"{resources.cpus} cores are too few for {gpus} GPUs: engine 'verl' sets {CPUS_PER_GPU} aside for each GPU and needs "
            f"{CPUS_BESIDE_GPUS} for its queue and the workers that draw answers; give at least {cpus_needed(gpus)}, or leave it out",
        )
    nodes = GpuNodes(resources.nodes, gpus) if gpus else GpuNodes(1, 1)
    for field, sentence in misfits(stage.config, nodes, on_cpu=_on_cpu(run, stage)):
        yield Problem(("spec", "stages", index, "config", *field.split(".")), sentence)


def resources_path(stage: AnyStage, index: int, field: str) -> Path:
    """Where the value that holds for the stage stands: with the stage, or with the run."""
    alias = Resources.model_fields[field].alias or field
    own = stage.resources is not None and field in stage.resources.model_fields_set
    return ("spec", "stages", index, "resources", alias) if own else ("spec", "resources", alias)


def _on_cpu(run: PrismRun, stage: AnyStage) -> bool:
    given: Mapping[str, str] = {variable.name: variable.value for variable in (*run.spec.env, *stage.env)}
    return given.get(ON_CPU) == "1"
