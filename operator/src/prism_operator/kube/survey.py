"""What a cluster does not carry out, and where things lie on it. Refusals are sentences; nothing is ignored."""

from __future__ import annotations

from collections.abc import Iterator

from prism_operator.api import AnyStage, PrismRun, Resources
from prism_operator.errors import BadRunError
from prism_operator.plan import Site, overlaid
from prism_operator.problems import Path, Problem
from prism_operator.sizing import resources_path, verl_problems
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.pod import STORAGE_DIR


def survey(run: PrismRun) -> Site:
    """The run's root lies in its storage under its own name; relative paths start at the storage's root."""
    problems = cluster_problems(run)
    if problems:
        raise BadRunError(problems)
    store = run.spec.storage.object_store
    base = store.uri.rstrip("/") if store else STORAGE_DIR
    return Site(root_uri=f"{base}/{run.metadata.name}", base_dir=base, pins=_pins(run, base))


def cluster_problems(run: PrismRun) -> list[Problem]:
    """Of the whole object."""
    problems = list(_of_the_run(run))
    for index, stage in enumerate(run.spec.stages):
        problems.extend(_of_a_stage(run, stage, index))
    return list(dict.fromkeys(problems))


def _of_the_run(run: PrismRun) -> Iterator[Problem]:
    spec = run.spec
    if spec.storage.local is not None:
        yield Problem(("spec", "storage", "local"), "a folder of one machine means nothing on a cluster; use pvc or objectStore")
    yield from _resources(spec.resources, ("spec", "resources"))


def _of_a_stage(run: PrismRun, stage: AnyStage, index: int) -> Iterator[Problem]:
    engine = stage.engine or run.spec.engine
    if stage.resources is not None:
        yield from _resources(stage.resources, ("spec", "stages", index, "resources"))
    if stage.checkpoint is not None:
        return
    resources = overlaid(run.spec.resources, stage.resources)
    if engine == "verl":
        yield from verl_problems(run, index)
        yield from _of_a_gang(run, stage, index, resources)
        return
    if resources.nodes > 1:
        sentence = f"{resources.nodes} machines are asked for, and engine 'local' computes on one; use 1, or engine 'verl'"
        yield Problem(resources_path(stage, index, "nodes"), sentence)
    if resources.rdma:
        sentence = "engine 'local' computes on one machine and needs no network card; leave it out, or take engine 'verl'"
        yield Problem(resources_path(stage, index, "rdma"), sentence)


def _of_a_gang(run: PrismRun, stage: AnyStage, index: int, resources: Resources) -> Iterator[Problem]:
    """What several machines need that one does not."""
    nodes, store = resources.nodes, run.spec.storage.object_store
    if resources.workers not in (None, nodes - 1):
        sentence = (
            f"found {resources.workers} Ray workers for {nodes} machines, and the head is one of them; use {nodes - 1}, or leave it out"
        )
        yield Problem(resources_path(stage, index, "workers"), sentence)
    if store is not None and nodes > 1:
        sentence = (
            f"{nodes} machines are asked for, and their parts of a checkpoint must lie in one folder that all of them see, which "
            "storage.objectStore is not; use storage.pvc, or 1 machine"
        )
        yield Problem(resources_path(stage, index, "nodes"), sentence)


def _resources(resources: Resources, path: Path) -> Iterator[Problem]:
    if resources.gpu_type is not None and not resources.gpus_per_node:
        yield Problem((*path, "gpuType"), f"found '{resources.gpu_type}', and gpusPerNode is 0; give a number of GPUs or leave it out")
    for name in resources.rdma:
        if "/" not in name:
            yield Problem((*path, "rdma"), f"found '{name}'; expected the resource of a device plugin, such as rdma/hca")


def _pins(run: PrismRun, base: str) -> dict[str, CheckpointRef]:
    """The operator does not look into storage: a pinned checkpoint is what the object says, and is verified by the stage that reads it."""
    site = Site(root_uri=base, base_dir=base)
    return {
        stage.name: CheckpointRef(
            stage=stage.name,
            uri=site.located(stage.checkpoint.uri),
            digest=stage.checkpoint.digest,
            step=0,
            revision=stage.checkpoint.revision,
        )
        for stage in run.spec.stages
        if stage.checkpoint is not None
    }
