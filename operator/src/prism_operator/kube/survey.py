"""What a cluster does not carry out, and where things lie on it. Refusals are sentences; nothing is ignored."""

from __future__ import annotations

from collections.abc import Iterator

from prism_operator.api import AnyStage, PrismRun, Resources
from prism_operator.errors import BadRunError
from prism_operator.plan import Site
from prism_operator.problems import Path, Problem
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
        problems.extend(_of_a_stage(run, stage, ("spec", "stages", index)))
    return problems


def _of_the_run(run: PrismRun) -> Iterator[Problem]:
    spec = run.spec
    if spec.storage.local is not None:
        yield Problem(("spec", "storage", "local"), "a folder of one machine means nothing on a cluster; use pvc or objectStore")
    yield from _resources(spec.resources, ("spec", "resources"))


def _of_a_stage(run: PrismRun, stage: AnyStage, path: Path) -> Iterator[Problem]:
    engine = stage.engine or run.spec.engine
    if stage.resources is not None:
        yield from _resources(stage.resources, (*path, "resources"))
    if stage.checkpoint is not None:
        return
    if engine == "verl":
        field = (*path, "engine") if stage.engine else ("spec", "engine")
        yield Problem(field, "engine 'verl' is not carried out yet; use 'local'")
        return
    own = stage.resources if stage.resources and "nodes" in stage.resources.model_fields_set else None
    nodes = (own or run.spec.resources).nodes
    if nodes > 1:
        field = (*path, "resources", "nodes") if own else ("spec", "resources", "nodes")
        yield Problem(field, f"{nodes} machines are asked for, and engine 'local' computes on one; use 1, or engine 'verl'")


def _resources(resources: Resources, path: Path) -> Iterator[Problem]:
    if resources.gpu_type is not None and not resources.gpus_per_node:
        yield Problem((*path, "gpuType"), f"found '{resources.gpu_type}', and gpusPerNode is 0; give a number of GPUs or leave it out")


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
