"""A PrismRun to a plan: the stages in order with every choice made, or a refusal with every problem. Pure.

A stage's configuration digest stands for all that determines its result: kind, configuration, seed, engine, system prompt, data, and
the digests of the stages its inputs come from. So a change of sft's learning rate changes the digest of sft and of all that follows
from it, and a change of alignment leaves sft's as it was.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prism_operator.api import (
    AnyStage,
    ClusterPolicy,
    Deadlines,
    EvaluationStage,
    Metadata,
    PrismRun,
    Queue,
    Resources,
    Retention,
    Retries,
    Secrets,
    StageDeadlines,
    Storage,
)
from prism_operator.errors import BadRunError
from prism_operator.names import BASE_MODEL, stage_condition
from prism_operator.problems import Problem
from prism_operator.wiring import Wire, wires_of
from prism_trainer.contract.addresses import hub_set
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig, StageConfig
from prism_trainer.contract.environments import Environment, environment_of
from prism_trainer.contract.gpu import EvaluationGpu, SftGpu, VerlGpu
from prism_trainer.contract.job import DataSource, Engine
from prism_trainer.contract.schema import Frozen, digest_of

Settings = TypeVar("Settings", bound=Frozen)

WITHOUT_EFFECT: dict[str, Any] = {
    "save_every": True,
    "dump_every": True,
    "judge": {"api_key_env", "timeout_seconds", "concurrency", "cache"},
    "gpu": (SftGpu.model_fields.keys() | EvaluationGpu.model_fields.keys() | VerlGpu.model_fields.keys()) - {"zero_stage"},
}
"""Options that change what is written, when and how fast, and not what is learned or found: outside the configuration digest, so that a
stage whose memory was short goes on with other ones. A ZeRO stage is not among them: DeepSpeed's shards fit their own only.
"""


@dataclass(frozen=True)
class StagePlan:
    """One stage, nothing left to choose."""

    name: str
    kind: str
    engine: Engine
    config: StageConfig
    config_digest: str
    wires: tuple[Wire, ...]
    data: tuple[DataSource, ...]
    pinned: CheckpointRef | None
    resources: Resources
    deadlines: StageDeadlines
    retries: Retries
    env: tuple[tuple[str, str], ...]
    image: str | None = None
    pod_template: tuple[dict[str, Any], ...] = ()
    """Patches of the pods, the run's first."""

    @property
    def environment(self) -> Environment:
        """The libraries it needs."""
        return environment_of(self.engine, self.kind)

    @property
    def shape(self) -> tuple[object, ...]:
        """What the pods of the stage are made of; stages of one shape can share them."""
        return (self.engine, self.environment, self.image, self.resources, self.env, self.pod_template, self.deadlines.stop_grace_seconds)


@dataclass(frozen=True)
class RunPlan:
    """The run."""

    name: str
    generation: int
    root_uri: str
    seed: int
    system_prompt: str
    model: CheckpointRef
    stages: tuple[StagePlan, ...]
    suspend: bool
    deadlines: Deadlines
    retention: Retention
    storage: Storage
    secrets: Secrets
    queue: Queue | None
    cluster_policy: ClusterPolicy
    ttl_seconds: int | None
    owner: Metadata
    """Of the PrismRun: namespace, uid, labels and annotations for its children."""

    def stage(self, name: str) -> StagePlan:
        """By name."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class Site:
    """What the executor knows and the object does not say: where things lie, and the digests of the checkpoints stages are skipped with."""

    root_uri: str
    base_dir: str | None = None
    """Where relative paths start; none where there are none."""
    pins: Mapping[str, CheckpointRef] = field(default_factory=dict)
    """By skipped stage."""

    def located(self, uri: str) -> str:
        """An absolute path for a relative one; an address stays."""
        if self.base_dir is None or "://" in uri:
            return uri
        if "://" in self.base_dir:
            return f"{self.base_dir.rstrip('/')}/{posixpath.normpath(uri)}"
        return posixpath.normpath(posixpath.join(self.base_dir, uri))


def make_plan(run: PrismRun, site: Site) -> RunPlan:
    """Every choice made, or BadRunError with all problems."""
    problems = plan_problems(run)
    if problems:
        raise BadRunError(problems)
    spec = run.spec
    digests: dict[str, str] = {}
    stages = []
    for index, stage in enumerate(spec.stages):
        wires = tuple(wires_of(spec.stages, index)[0])
        pinned = _pinned(stage, site)
        identity = {wire.role: _identity(run, site, wire.stage, digests) for wire in wires}
        digests[stage.name] = _config_digest(run, stage, identity)
        stages.append(_stage_plan(run, stage, site, digests[stage.name], wires, pinned))
    return RunPlan(
        name=run.metadata.name,
        generation=run.metadata.generation,
        root_uri=site.root_uri,
        seed=spec.seed,
        system_prompt=spec.system_prompt,
        model=CheckpointRef(stage=BASE_MODEL, uri=site.located(spec.model.uri), digest=None, step=0, revision=spec.model.revision),
        stages=tuple(stages),
        suspend=spec.suspend,
        deadlines=spec.deadlines,
        retention=spec.retention,
        storage=spec.storage,
        secrets=spec.secrets,
        queue=spec.queue,
        cluster_policy=spec.cluster_policy,
        ttl_seconds=spec.ttl_seconds_after_finished,
        owner=run.metadata,
    )


def plan_problems(run: PrismRun) -> list[Problem]:
    """What the schema cannot see: how the stages fit together."""
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for index, stage in enumerate(run.spec.stages):
        path = ("spec", "stages", index)
        other = seen.setdefault(stage_condition(stage.name), stage.name)
        if stage.name in [earlier.name for earlier in run.spec.stages[:index]]:
            problems.append(Problem((*path, "name"), f"a second stage is named '{stage.name}'; give each a name of its own"))
        elif other != stage.name:
            problems.append(Problem((*path, "name"), f"'{stage.name}' and '{other}' would share one condition; rename one"))
        if stage.name == BASE_MODEL:
            problems.append(Problem((*path, "name"), "'model' means the base model; give the stage another name"))
        if not stage.data and stage.checkpoint is None and not (isinstance(stage, EvaluationStage) and stage.config.benchmarks):
            problems.append(
                Problem((*path, "data"), f"stage '{stage.name}' has no data set; give at least one, or a checkpoint to skip it with")
            )
        judge = stage.config.judge if isinstance(stage, EvaluationStage) else None
        if judge and judge.uri and (stage.engine or run.spec.engine) == "local":
            found = f"stage '{stage.name}' has engine local, which serves no judge; give baseUrl, or take engine verl"
            problems.append(Problem((*path, "config", "judge", "uri"), found))
        problems.extend(wires_of(run.spec.stages, index)[1])
    return problems


def _stage_plan(
    run: PrismRun, stage: AnyStage, site: Site, digest: str, wires: tuple[Wire, ...], pinned: CheckpointRef | None
) -> StagePlan:
    spec = run.spec
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        engine=stage.engine or spec.engine,
        config=_located(stage.config, site),
        config_digest=digest,
        wires=wires,
        data=tuple(source.model_copy(update={"uri": _data_uri(source.uri, site)}) for source in stage.data),
        pinned=pinned,
        resources=overlaid(spec.resources, stage.resources),
        deadlines=overlaid(spec.deadlines, stage.deadlines),
        retries=overlaid(spec.retries, stage.retries),
        env=tuple({variable.name: variable.value for variable in (*spec.env, *stage.env)}.items()),
        image=stage.image or spec.image,
        pod_template=tuple(patch for patch in (spec.pod_template, stage.pod_template) if patch),
    )


def _data_uri(uri: str, site: Site) -> str:
    """A folder keeps the / that tells it from a file in a bucket."""
    on_hub = hub_set(uri)
    if on_hub is not None:
        return on_hub.uri
    return site.located(uri) + ("/" if uri.endswith("/") and "://" not in uri else "")


def _located(config: StageConfig, site: Site) -> StageConfig:
    """Folders that a configuration names, as data sets are located; their digest is that of what the user wrote."""
    if not isinstance(config, EvaluationConfig):
        return config
    benchmarks = tuple(one.model_copy(update={"uri": site.located(one.uri)}) if one.uri else one for one in config.benchmarks)
    judge = config.judge
    if judge:
        judge = judge.model_copy(update={name: site.located(uri) for name in ("cache", "uri") if (uri := getattr(judge, name))})
    return config.model_copy(update={"benchmarks": benchmarks, "judge": judge})


def overlaid(base: Settings, override: Frozen | None) -> Settings:
    """Fields the stage gives replace the run's."""
    return base if override is None else base.model_copy(update=override.model_dump(by_alias=False, exclude_unset=True))


def _pinned(stage: AnyStage, site: Site) -> CheckpointRef | None:
    if stage.checkpoint is None:
        return None
    given = stage.checkpoint
    unread = CheckpointRef(stage=stage.name, uri=site.located(given.uri), digest=given.digest, step=0, revision=given.revision)
    return site.pins.get(stage.name, unread)


def _identity(run: PrismRun, site: Site, source: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """What an input is, wherever it lies: a digest where there is one, an address and revision where not."""
    if source == BASE_MODEL:
        return {"uri": run.spec.model.uri, "revision": run.spec.model.revision}
    stage = next(stage for stage in run.spec.stages if stage.name == source)
    if stage.checkpoint is None:
        return {"configDigest": digests[source]}
    pinned = site.pins.get(source)
    digest = pinned.digest if pinned else stage.checkpoint.digest
    return {"digest": digest} if digest else {"uri": stage.checkpoint.uri, "revision": stage.checkpoint.revision}


def _config_digest(run: PrismRun, stage: AnyStage, inputs: Mapping[str, Any]) -> str:
    return digest_of(
        {
            "kind": stage.kind,
            "config": stage.config.model_dump(mode="json", exclude=WITHOUT_EFFECT),
            "seed": run.spec.seed,
            "engine": stage.engine or run.spec.engine,
            "systemPrompt": run.spec.system_prompt,
            "data": [source.to_dict() for source in stage.data],
            "inputs": dict(inputs),
            "checkpoint": stage.checkpoint.to_dict() if stage.checkpoint else None,
        }
    )
