"""PrismRun, `prism.dev/v1alpha1`: everything a user may write. The CRD is generated from it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from prism_operator.api.settings import (
    MAX_STAGES,
    ClusterPolicy,
    Deadlines,
    Env,
    Image,
    Model,
    Queue,
    Resources,
    Retention,
    Retries,
    Secrets,
    Storage,
)
from prism_operator.api.stages import Stage
from prism_operator.api.status import PrismRunStatus
from prism_trainer.contract.job import PRISM_SYSTEM_PROMPT, Engine
from prism_trainer.contract.schema import Frozen


class Metadata(Frozen):
    """Kubernetes' own. The API server adds fields, so others than these are let through."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        max_length=36,
        description="DNS label of at most 36 characters, because it is part of longer names.",
    )
    namespace: str | None = Field(None, description="Namespace.")
    labels: dict[str, str] = Field(default_factory=dict, description="Passed on to the children.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Passed on to the children where a queue needs them.")
    generation: int = Field(1, description="Counts changes of the spec; kept by the API server.")
    uid: str | None = Field(None, description="Kept by the API server.")
    creation_timestamp: str | None = Field(None, description="Kept by the API server.")


class RunSpec(Frozen):
    """What to do."""

    model: Model = Field(description="Base model.")
    storage: Storage = Field(description="Where checkpoints and reports go.")
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=MAX_STAGES, description="In the order they run.")
    seed: int = Field(0, ge=0, description="Of every random draw.")
    engine: Engine = Field("local", description="Who carries the stages out: local (torch, one machine) or verl (Ray).")
    system_prompt: str = Field(PRISM_SYSTEM_PROMPT, max_length=32768, description="Put before every prompt that has none.")
    suspend: bool = Field(False, description="Stop the running stage after it has saved, and start none.")
    ttl_seconds_after_finished: int | None = Field(None, ge=0, description="Delete the object this long after its end.")
    cluster_policy: ClusterPolicy = Field("Fresh", description="A new cluster for each attempt, or one for stages of the same shape.")
    queue: Queue | None = Field(None, description="Queue that admits the stages.")
    secrets: Secrets = Field(default_factory=Secrets, description="Tokens, by reference.")
    deadlines: Deadlines = Field(default_factory=Deadlines, description="How long things may take.")
    retries: Retries = Field(default_factory=Retries, description="Budget of each class of failure, for each stage.")
    retention: Retention = Field(default_factory=Retention, description="Which checkpoints are kept.")
    resources: Resources = Field(default_factory=Resources, description="What a stage runs on.")
    image: Image | None = Field(None, description="Container image of the stages.")
    env: Env = Field((), description="Environment variables of the stages.")
    pod_template: dict[str, Any] | None = Field(None, description="Patch of the stages' pods, checked by the API server.")


class PrismRun(Frozen):
    """One run."""

    api_version: Literal["prism.dev/v1alpha1"]
    kind: Literal["PrismRun"]
    metadata: Metadata
    spec: RunSpec
    status: PrismRunStatus | None = Field(None, description="Written by us only.")
