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
from prism_trainer.contract.report import Progress, StageResult
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


@dataclass(frozen=True)
class CommittedCheckpoint:
    """A checkpoint with a sound manifest."""

    stage: str
    attempt: int
    uri: str
    manifest: CheckpointManifest

    @property
    def ref(self) -> CheckpointRef:
        """As an input names it."""
        return CheckpointRef(stage=self.stage, uri=self.uri, digest=self.manifest.digest, step=self.manifest.step, revision=None)


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
    forgiven: Mapping[str, int] = field(default_factory=dict)
    """By stage: attempts up to this number count against no budget."""


@dataclass(frozen=True)
class Children:
    """All of it, in any order, possibly with duplicates."""

    wishes: Wishes
    attempts: tuple[AttemptRecord, ...] = ()
    checkpoints: tuple[CommittedCheckpoint, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    damaged: tuple[str, ...] = ()
    """Sentences about manifests that cannot be read. They count for nothing and are left where they are."""
