"""What an executor finds when it looks: attempts, committed checkpoints, and what whoever called wants. Values only, no rules.

The local executor reads them from the run folder, the Kubernetes one from the API server and the manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef
from prism_trainer.contract.report import FailureClass, Progress, StageResult
from prism_trainer.contract.schema import Frozen


class StopReason(StrEnum):
    """Why we stop an attempt."""

    SUSPEND = "Suspend"
    INTERRUPT = "Interrupt"
    HANG = "Hang"
    STAGE_DEADLINE = "StageDeadline"
    RUN_DEADLINE = "RunDeadline"
    LINGERING = "Lingering"
    NOT_WANTED = "NotWanted"
    DELETED = "Deleted"
    HEAD_LOST = "HeadLost"
    START_DEADLINE = "StartDeadline"
    QUEUE_DEADLINE = "QueueDeadline"
    WORKER_LOST = "WorkerLost"
    CLUSTER_LOST = "ClusterLost"


class Outcome(StrEnum):
    """Of an attempt."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    STOPPED = "Stopped"
    FAILED = "Failed"


@dataclass(frozen=True)
class Verdict:
    """With a failure class when Failed; a stop nobody of us asked for is Stopped and has the class Preempted."""

    outcome: Outcome
    failure_class: FailureClass | None = None
    message: str = ""


@dataclass(frozen=True)
class Pending:
    """Why an attempt does not run yet, in the words of whoever holds it up."""

    reason: str
    message: str
    queued: bool = False
    """Waits for the queue's admission, not for its pods."""
    until: datetime | None = None
    """When to look again what it waits for, where nothing is wrong yet."""


class StopRequest(Frozen):
    """That an attempt was asked to stop; outlives whoever asked."""

    reason: StopReason = Field(description="Why.")
    requested_at: str = Field(description="UTC, RFC 3339.")
    killed_at: str | None = Field(None, description="When patience ended.")


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt, as found. Fields are empty where nothing was written, for whatever reason."""

    stage: str
    number: int
    alive: bool = False
    config_digest: str | None = None
    resume_from: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    """Negative: killed by that signal. None: not known, for example because the runner died first."""
    stop: StopRequest | None = None
    result: StageResult | None = None
    progress: Progress | None = None
    log_tail: str = ""
    log_file: str = ""
    restarts: Mapping[FailureClass, int] = field(default_factory=dict)
    """Failures that were retried within the attempt, by class."""
    settled: Verdict | None = None
    """How it ended, where that was judged and written down while its pods were still there."""
    remains: bool = False
    """It has ended, and its cluster is still there."""
    deleting: datetime | None = None
    """Since when its cluster is being deleted."""
    leaving: datetime | None = None
    """Since when its pods should be on their way out, whoever deleted them."""
    holding_since: datetime | None = None
    """Since when it holds its GPUs; by default since its start."""
    gpu_seconds_before: float = 0.0
    """As last written down."""
    waiting_since: datetime | None = None
    """When its pods could first have been made: a queue may have held it up before. By default when it was started."""
    pending: Pending | None = None
    """Set while it lives and its stage has not begun."""
    held_up: str = ""
    """What it waited for when that was last written down, where its stage has never begun."""
    loss: Verdict | None = None
    """What its cluster lost, where its stage said nothing."""
    cluster: str = ""
    """Name of its RayCluster."""
    images: Mapping[str, str] = field(default_factory=dict)
    """By container: image with digest."""


@dataclass(frozen=True)
class CommittedCheckpoint:
    """A committed checkpoint, as far as the rules need to know it."""

    stage: str
    attempt: int
    uri: str
    digest: str
    step: int
    final: bool
    config_digest: str
    created_at: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_manifest(cls, attempt: int, uri: str, manifest: CheckpointManifest) -> CommittedCheckpoint:
        """One whose manifest was read."""
        made = manifest.provenance
        return cls(
            stage=manifest.stage,
            attempt=attempt,
            uri=uri,
            digest=manifest.digest,
            step=manifest.step,
            final=manifest.final,
            config_digest=manifest.config_digest,
            created_at=made.created_at,
            metrics=made.metrics,
            versions=made.versions,
            data=manifest.data,
        )

    @property
    def ref(self) -> CheckpointRef:
        """As an input names it."""
        return CheckpointRef(stage=self.stage, uri=self.uri, digest=self.digest, step=self.step, revision=None)


@dataclass(frozen=True)
class Unfinished:
    """A checkpoint folder without a manifest: not a checkpoint."""

    stage: str
    attempt: int
    uri: str


@dataclass(frozen=True)
class Wishes:
    """What the caller wants beyond the spec; for `prism run`, this invocation of it."""

    since: datetime
    """When this run, or this invocation of it, began; its deadline counts from here."""
    interrupted: bool = False
    """Stop the running stage after it has saved, and start none."""
    impatient: bool = False
    """Kill rather than wait for the saving."""
    reopen: bool = False
    """An end that the status tells of does not bind this caller. Never on a cluster: there, a new run is a new object."""
    redo: bool = False
    """Stages whose configuration changed may be done again."""
    deleted: bool = False
    """The object is being deleted: stop what lives, start nothing, and let it go when nothing is left."""
    forgiven: Mapping[str, int] = field(default_factory=dict)
    """By stage: attempts up to this number count against no budget."""


@dataclass(frozen=True)
class Forgotten:
    """What is left of a stage's attempts that are no longer told of one by one."""

    failures: Mapping[FailureClass, int] = field(default_factory=dict)
    gpu_seconds: float = 0.0


@dataclass(frozen=True)
class Children:
    """All of it, in any order, possibly with duplicates."""

    wishes: Wishes
    attempts: tuple[AttemptRecord, ...] = ()
    checkpoints: tuple[CommittedCheckpoint, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    forgotten: Mapping[str, Forgotten] = field(default_factory=dict)
    """By stage."""
    damaged: tuple[str, ...] = ()
    """Sentences about manifests that cannot be read. They count for nothing and are left where they are."""
