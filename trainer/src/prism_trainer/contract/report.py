"""What a stage tells while it runs and when it ends. `result.json` fits a Kubernetes termination message (4 KiB)."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.schema import Frozen

PROGRESS = "progress.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
RESULT_LIMIT_BYTES = 4096
PARENT_PID = "PRISM_PARENT_PID"
"""Environment variable that tells a stage who started it; when that process is gone, the stage saves and stops by itself."""


class FailureClass(StrEnum):
    """Why an attempt failed; each class has its own retry budget."""

    USER_ERROR = "UserError"
    HANG = "Hang"
    OUT_OF_MEMORY = "OutOfMemory"
    NODE_LOST = "NodeLost"
    HEAD_LOST = "HeadLost"
    PREEMPTED = "Preempted"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    CONTROL_PLANE = "ControlPlane"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


EXIT_CODES: dict[FailureClass, int] = {
    FailureClass.USER_ERROR: 1,
    FailureClass.CHECKPOINT_CORRUPT: 65,
    FailureClass.NODE_LOST: 69,
    FailureClass.HANG: 70,
    FailureClass.OUT_OF_MEMORY: 71,
    FailureClass.CONTROL_PLANE: 74,
    FailureClass.PREEMPTED: 75,
}
"""Exit code of the trainer process, and of its container, for the classes they can tell; 0 is success, 2 an unreadable job file."""


class Restart(Frozen):
    """A trainer process that failed and was started again in the same pods."""

    failure_class: FailureClass = Field(description="Why it failed.")
    message: str = Field("", description="A sentence for people.")
    at: str = Field(description="UTC, RFC 3339.")


class Progress(Frozen):
    """A heartbeat: rewritten every second or so, also while a step takes long."""

    stage: str
    attempt: int = Field(ge=1)
    phase: str = Field("training", description="What it does now: loading, sampling, training, evaluating, saving.")
    step: int = Field(0, ge=0, description="Steps done.")
    total_steps: int = Field(0, ge=0, description="Steps in all; 0 while unknown.")
    eta_seconds: float | None = Field(None, ge=0, description="Estimated time left in the stage.")
    metrics: dict[str, float] = Field(default_factory=dict, description="A few, for people to watch.")
    resume_from: str | None = Field(None, description="Checkpoint the attempt went on from.")
    advanced_at: str = Field(description="UTC time of the last sign of work; older than progressSeconds is a hang.")
    updated_at: str = Field(description="UTC time of this heartbeat.")


class MetricsLine(Frozen):
    """One line of `metrics.jsonl`."""

    step: int = Field(ge=0)
    attempt: int = Field(ge=1)
    time: str = Field(description="UTC, RFC 3339.")
    metrics: dict[str, float]


class StageResult(Frozen):
    """How an attempt ended."""

    stage: str
    attempt: int = Field(ge=1)
    outcome: Literal["Succeeded", "Failed", "Stopped"] = Field(description="Stopped: asked to stop, saved, can go on.")
    failure_class: FailureClass | None = Field(None, description="Set when Failed.")
    message: str = Field("", description="A sentence for people.")
    checkpoint: CheckpointRef | None = Field(None, description="The last committed checkpoint.")
    seconds: float = Field(0.0, ge=0, description="Wall time of this attempt.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Final metrics.")
    resume_from: str | None = Field(None, description="Checkpoint the attempt went on from, where its pod chose it.")
    restarts: tuple[Restart, ...] = Field((), description="Failures within the attempt; each counts against its class's budget.")
    versions: dict[str, str] = Field(default_factory=dict, description="Package versions, as in the checkpoint's manifest.")
    data: dict[str, str] = Field(default_factory=dict, description="Digest of each data file, by its address.")

    def to_message(self) -> str:
        """As JSON of at most 4 KiB in UTF-8: without versions and metrics where need be, then with shorter sentences and fewer restarts."""
        text = self.model_dump_json(exclude_none=True)
        for words, num_restarts in ((1500, 8), (700, 8), (350, 4), (150, 2), (50, 0)):
            if len(text.encode()) <= RESULT_LIMIT_BYTES:
                return text
            brief = {"message": self.message[:words], "metrics": {}, "versions": {}, "restarts": self._newest_restarts(num_restarts)}
            text = self.model_copy(update=brief).model_dump_json(exclude_none=True)
        return text

    def _newest_restarts(self, count: int) -> tuple[Restart, ...]:
        newest = self.restarts[len(self.restarts) - count :] if count < len(self.restarts) else self.restarts
        return tuple(restart.model_copy(update={"message": restart.message[:100]}) for restart in newest)
