"""What `prism run` must know about the machine before anything starts, and what it refuses: every option it would have to ignore."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prism_operator.api import AnyStage, EvaluationStage, PrismRun, Resources
from prism_operator.errors import BadRunError
from prism_operator.local.machine import Machine
from prism_operator.local.pins import pins_of
from prism_operator.names import BASE_MODEL
from prism_operator.plan import Site
from prism_operator.problems import Path as FieldPath
from prism_operator.problems import Problem, parse_path
from prism_operator.sizing import verl_problems
from prism_operator.wiring import wires_of
from prism_trainer.contract.addresses import hub_set
from prism_trainer.contract.environments import environment_of

STAGES: FieldPath = ("spec", "stages")

OBJECTS = "s3://"
_LIKE_AN_ID = re.compile(r"[\w-]+/[\w.-]+(?<!\.json)(?<!\.jsonl)(?<!\.parquet)")


def survey(run: PrismRun, run_dir: Path, machine: Machine) -> Site:
    """Where everything lies, or BadRunError with every problem."""
    problems = local_problems(run, machine)
    pins, unpinned = pins_of(run, machine.cwd)
    if problems or unpinned:
        raise BadRunError([*problems, *unpinned])
    return Site(root_uri=str(run_dir), base_dir=str(machine.cwd), pins=pins)


def local_problems(run: PrismRun, machine: Machine) -> list[Problem]:
    """What this executor does not carry out. Never ignored."""
    problems = [*_of_the_run(run), *_resources(run.spec.resources, ("spec", "resources"), machine), *_model(run, machine)]
    for index, stage in enumerate(run.spec.stages):
        problems.extend(_of_a_stage(run, stage, (*STAGES, index), machine))
        problems.extend(_of_engine_verl(run, index, machine))
    return list(dict.fromkeys(problems))


def _of_the_run(run: PrismRun) -> Iterator[Problem]:
    spec = run.spec
    refused: list[tuple[bool, str, str]] = [
        (spec.storage.pvc is not None, "storage.pvc", "a volume claim means nothing on one machine; use storage.local"),
        (
            spec.storage.object_store is not None,
            "storage.objectStore",
            "`prism run` keeps checkpoints in its folder; use storage.local (data may lie at s3:// all the same)",
        ),
        (
            bool(spec.secrets.model_fields_set),
            "secrets",
            "Secrets exist in a cluster only; leave it out and set variables in your shell",
        ),
        (spec.queue is not None, "queue", "there is no queue on one machine; leave it out"),
        (spec.deadlines.queue_seconds is not None, "deadlines.queueSeconds", "there is no queue on one machine; leave it out"),
        (
            spec.ttl_seconds_after_finished is not None,
            "ttlSecondsAfterFinished",
            "`prism run` leaves its folder to you; leave it out",
        ),
        (spec.cluster_policy != "Fresh", "clusterPolicy", "there is no cluster to use again; leave it out"),
        (spec.image is not None, "image", "`prism run` starts processes, not containers; leave it out"),
        (spec.pod_template is not None, "podTemplate", "`prism run` starts processes, not pods; leave it out"),
    ]
    return (Problem(("spec", *parse_path(field)), sentence) for holds, field, sentence in refused if holds)


def _of_a_stage(run: PrismRun, stage: AnyStage, path: FieldPath, machine: Machine) -> Iterator[Problem]:
    if stage.image is not None:
        yield Problem((*path, "image"), "`prism run` starts processes, not containers; leave it out")
    if stage.pod_template is not None:
        yield Problem((*path, "podTemplate"), "`prism run` starts processes, not pods; leave it out")
    if stage.resources is not None:
        yield from _resources(stage.resources, (*path, "resources"), machine)
    if stage.checkpoint is not None:
        return
    yield from _data(stage, path, machine)
    if isinstance(stage, EvaluationStage):
        yield from _benchmarks(stage, (*path, "config", "benchmarks"), machine)
    if stage.config.device == "cuda" and machine.num_gpus() == 0:
        yield Problem((*path, "config", "device"), "a GPU is asked for, and this machine has none; use 'auto' or 'cpu'")


def _of_engine_verl(run: PrismRun, index: int, machine: Machine) -> Iterator[Problem]:
    """One machine, its GPUs, and a Python that has the library."""
    stage = run.spec.stages[index]
    environment = environment_of(stage.engine or run.spec.engine, stage.kind)
    if stage.checkpoint is not None or environment == "cpu":
        return
    yield from verl_problems(run, index)
    lack = machine.interpreter(environment).lack
    if lack:
        yield Problem((*STAGES, index, "engine") if stage.engine else ("spec", "engine"), f"stage '{stage.name}': {lack}")


def _resources(resources: Resources, path: FieldPath, machine: Machine) -> Iterator[Problem]:
    if resources.nodes > 1:
        yield Problem((*path, "nodes"), f"{resources.nodes} machines are asked for, and `prism run` has one; use 1")
    if resources.gpus_per_node and resources.gpus_per_node > machine.num_gpus():
        asked, found = resources.gpus_per_node, machine.num_gpus()
        has, way_out = (f"{found} of them", f"use at most {found}") if found else ("no GPU", "leave it out")
        yield Problem((*path, "gpusPerNode"), f"found {asked}, and this machine has {has}; {way_out}")
    for field, alias in (
        ("gpu_type", "gpuType"),
        ("workers", "workers"),
        ("memory", "memory"),
        ("shared_memory", "sharedMemory"),
        ("rdma", "rdma"),
    ):
        if getattr(resources, field) not in (None, {}):
            yield Problem((*path, alias), "a process takes what the machine has, so this has no effect here; leave it out")


def _model(run: PrismRun, machine: Machine) -> Iterator[Problem]:
    stages = run.spec.stages
    read = any(wire.stage == BASE_MODEL for index in range(len(stages)) for wire in wires_of(stages, index)[0])
    path: FieldPath = ("spec", "model")
    if not read:
        return
    found = _missing(run.spec.model.uri, machine, "model", "a folder in Hugging Face's format")
    if found:
        yield Problem((*path, "uri"), found)
    elif not (machine.cwd / run.spec.model.uri / "config.json").is_file():
        yield Problem((*path, "uri"), f"{machine.cwd / run.spec.model.uri} has no config.json; expected a folder in Hugging Face's format")
    if run.spec.model.revision is not None:
        yield Problem((*path, "revision"), "a local folder has no revisions; leave it out")


def _data(stage: AnyStage, path: FieldPath, machine: Machine) -> Iterator[Problem]:
    """What is not on this machine is fetched when the stage begins."""
    for index, source in enumerate(stage.data):
        on_hub = hub_set(source.uri)
        if on_hub is None and not source.uri.startswith(OBJECTS):
            found = _missing(source.uri, machine, "data set", "a .json, .jsonl or .parquet file, a pattern or a folder")
            if found:
                yield Problem((*path, "data", index, "uri"), found)
        if on_hub is not None and (machine.cwd / source.uri).exists():
            sentence = f"'{source.uri}' is the id of a data set on Hugging Face, and {machine.cwd / source.uri} exists"
            yield Problem((*path, "data", index, "uri"), f"{sentence}; write ./{source.uri} or {on_hub.uri}")
        if on_hub is None and source.revision is not None:
            yield Problem((*path, "data", index, "revision"), "only a data set on Hugging Face has revisions; leave it out")


def _benchmarks(stage: EvaluationStage, path: FieldPath, machine: Machine) -> Iterator[Problem]:
    """Data sets of the hub are fetched by the stage; only what must be here is looked for."""
    for index, one in enumerate(stage.config.benchmarks):
        on_hub = one.uri is None or one.uri.startswith("hf://")
        found = None if on_hub else _missing(one.uri or "", machine, "data set", f"a folder laid out as {one.name} is published")
        if found:
            yield Problem((*path, index, "uri"), found)
        if one.revision is not None and not on_hub:
            yield Problem((*path, index, "revision"), "a local folder has no revisions; leave it out")


def _missing(uri: str, machine: Machine, what: str, expected: str) -> str | None:
    """Addresses and Hugging Face ids of models end here as well: nothing fetches them yet."""
    if "://" in uri:
        return f"'{uri}': `prism run` does not fetch a {what} from such an address; give the path of {expected}"
    path = machine.cwd / uri
    if path.exists() or ("*" in path.name and any(path.parent.glob(path.name))):
        return None
    hint = " (a Hugging Face id? They are not fetched yet)" if _LIKE_AN_ID.fullmatch(uri) else ""
    return f"no {what} at {path}{hint}; give the path of {expected}"
