"""What a PrismRun says beside its stages: model, storage, secrets, budgets, deadlines, resources."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from prism_trainer.contract.report import FailureClass
from prism_trainer.contract.schema import Frozen

# Lengths are bounded, generously, because the API server weighs each admission rule by the longest object it might see.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", max_length=32)]
Uri = Annotated[str, Field(min_length=1, max_length=1024)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
Revision = Annotated[str, Field(max_length=256)]
Image = Annotated[str, Field(max_length=1024)]
Rdma = dict[str, Annotated[int, Field(ge=1)]]

MAX_STAGES = 32
MAX_STAGE_NAME = 20

SECRET_NAME_PATTERN = r"(?i)(^|_)[A-Z]*(TOKEN|SECRET|KEY|PASSWORD|PASSWD|CREDENTIAL)S?(_|$)"
"""Names of environment variables that look like a secret's; also a rule of the CRD."""


class Model(Frozen):
    """The base model every chain of stages begins with."""

    uri: Uri = Field(description="Hugging Face directory: local path, or Hugging Face id.")
    revision: Revision | None = Field(None, description="Revision, for a Hugging Face id.")


class SecretRef(Frozen):
    """One key of a Secret in the run's namespace. Tokens are only ever given by reference."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: ObjectName = Field(description="Key in it.")


class Secrets(Frozen):
    """Tokens for the services a stage talks to."""

    hugging_face: SecretRef | None = Field(None, description="Token for the Hugging Face hub.")
    wandb: SecretRef | None = Field(None, description="API key for Weights & Biases.")
    judge: SecretRef | None = Field(None, description="API key of the evaluation's judge.")
    object_store: SecretRef | None = Field(None, description="Credentials for data and checkpoints in object storage.")


class LocalStorage(Frozen):
    """A folder on the machine that runs the stages."""

    path: Uri = Field(description="Run folder; a relative path starts at the current directory.")


class PvcStorage(Frozen):
    """A shared volume."""

    claim_name: ObjectName = Field(description="PersistentVolumeClaim, ReadWriteMany.")
    sub_path: str = Field("", max_length=1024, description="Folder in it.")


class ObjectStorage(Frozen):
    """A bucket."""

    uri: str = Field(pattern=r"^s3://[^/]+", max_length=1024, description="s3://bucket/prefix.")
    endpoint: Uri | None = Field(None, description="Address of the service, where it is not AWS.")
    credentials: SecretRef | None = Field(None, description="Access key and secret, as one file in AWS' format.")


class Storage(Frozen):
    """Where checkpoints and reports go: exactly one of the three."""

    local: LocalStorage | None = Field(None, description="A folder, for `prism run`.")
    pvc: PvcStorage | None = Field(None, description="A shared volume.")
    object_store: ObjectStorage | None = Field(None, description="A bucket.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name, value in (("local", self.local), ("pvc", self.pvc), ("objectStore", self.object_store)) if value]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'} of local, pvc and objectStore; give exactly one")
        return self


class StageDeadlines(Frozen):
    """How long a stage may take, in seconds. No deadline means: as long as it makes progress."""

    stage_seconds: int | None = Field(None, ge=1, description="From a stage's first attempt to its end.")
    progress_seconds: int = Field(1800, ge=1, description="Without a sign of work for longer, an attempt hangs: it is stopped and retried.")
    start_seconds: int = Field(
        3600, ge=1, description="From an attempt's creation to the stage's beginning, on a cluster: images, pods, gang."
    )
    stop_grace_seconds: int = Field(120, ge=0, description="From the wish to stop to the kill; the stage saves in this time.")


class Deadlines(StageDeadlines):
    """The same, as the stages' default, and two for the run."""

    run_seconds: int | None = Field(None, ge=1, description="From the start of the run to its end.")
    queue_seconds: int | None = Field(None, ge=1, description="Waiting for admission by the queue.")


class Retries(Frozen):
    """How often a stage is tried again after each class of failure. A stop on request is no failure."""

    user_error: int = Field(0, ge=0, description="Wrong configuration, data or code: the same again gives the same.")
    hang: int = Field(1, ge=0, description="No sign of work within progressSeconds.")
    out_of_memory: int = Field(0, ge=0, description="GPU or host memory ran out.")
    node_lost: int = Field(3, ge=0, description="A process or machine vanished without a word.")
    head_lost: int = Field(3, ge=0, description="The cluster's head vanished.")
    preempted: int = Field(10, ge=0, description="Somebody else stopped it; it saved.")
    checkpoint_corrupt: int = Field(0, ge=0, description="An input or a resumed checkpoint does not match its manifest.")
    control_plane: int = Field(10, ge=0, description="The attempt could not be started.")
    deadline_exceeded: int = Field(0, ge=0, description="The stage took longer than stageSeconds.")

    def budget(self, failure_class: FailureClass) -> int:
        """Retries allowed after a failure of this class."""
        return int(getattr(self, _field_of(failure_class)))


class Retention(Frozen):
    """Which checkpoints are kept. A stage's final checkpoint is never deleted."""

    keep_intermediate: int = Field(1, ge=1, description="Resumable checkpoints kept while a stage is under way.")
    keep_intermediate_when_done: int = Field(0, ge=0, description="Of those, kept after the stage's final checkpoint is committed.")


class Resources(Frozen):
    """What a stage runs on."""

    nodes: int = Field(1, ge=1, description="Machines.")
    gpus_per_node: int = Field(0, ge=0, description="GPUs on each.")
    gpu_type: str | None = Field(None, max_length=63, description="Value of the node label that names the GPU's product.")
    workers: int | None = Field(None, ge=0, description="Ray worker pods; by default nodes - 1, as the head works too.")
    cpus: int | None = Field(None, ge=1, description="CPU cores on each machine; on one machine, threads. By default all.")
    memory: Quantity | None = Field(None, description="Memory on each machine.")
    shared_memory: Quantity | None = Field(None, description="/dev/shm on each machine.")
    rdma: Rdma = Field(
        {}, max_length=4, description="Network cards of each machine: a device plugin's resource, such as rdma/hca, and how many."
    )

    @property
    def num_gpus(self) -> int:
        """In all."""
        return self.nodes * self.gpus_per_node


class EnvVar(Frozen):
    """An environment variable of the stages, in the clear."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128, description="Name.")
    value: str = Field(max_length=32768, description="Value.")

    @field_validator("name")
    @classmethod
    def _no_secret(cls, name: str) -> str:
        if re.search(SECRET_NAME_PATTERN, name):
            raise ValueError(
                f"'{name}' looks like a secret, and env stands in the object in the clear; give it by reference in spec.secrets"
            )
        return name


def _each_once(env: tuple[EnvVar, ...]) -> tuple[EnvVar, ...]:
    names = [variable.name for variable in env]
    again = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if again:
        raise ValueError(f"{' and '.join(again)} stand in it more than once; give each variable one value")
    return env


Env = Annotated[tuple[EnvVar, ...], Field(max_length=100), AfterValidator(_each_once)]


class Queue(Frozen):
    """Passed through to the cluster's queueing system."""

    name: ObjectName = Field(description="Name of the local queue.")
    priority: ObjectName | None = Field(None, description="Priority class.")


ClusterPolicy = Literal["Fresh", "Reuse"]


def _field_of(failure_class: FailureClass) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in failure_class.value).lstrip("_")
