"""The status of a PrismRun, as the API server holds it and `status.json` spells it. Bounded: attempts beyond the last ten are dropped."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from prism_trainer.contract.schema import Frozen

MAX_ATTEMPTS_SHOWN = 10
MAX_MESSAGE_CHARACTERS = 2000

ConditionStatus = Literal["True", "False", "Unknown"]
Summary = Literal["Pending", "Running", "Retrying", "Stopping", "Stopped", "Suspended", "Refused", "Succeeded", "Failed"]
StageState = Literal["Pending", "Running", "Retrying", "Stopping", "Stopped", "Succeeded", "Skipped", "Failed"]


class Reported(Frozen):
    """Unlike a spec, a status written by another version is read as far as it is understood."""

    model_config = ConfigDict(extra="ignore")


class Condition(Reported):
    """One observation, keyed by type."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: str = Field(description="When `status` last changed; other changes leave it.")
    observed_generation: int = Field(0, description="Generation of the spec it was made from; kubectl wait refuses older ones.")


class AttemptStatus(Reported):
    """How one attempt went."""

    number: int
    outcome: str = Field(description="Running, Succeeded, Failed or Stopped.")
    failure_class: str | None = None
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    gpu_seconds: float = 0.0
    resume_from: str | None = Field(None, description="Checkpoint it went on from.")


class CheckpointStatus(Reported):
    """A committed checkpoint."""

    uri: str
    digest: str | None = None
    step: int = 0


class StageStatus(Reported):
    """One stage."""

    name: str
    kind: str
    state: StageState
    config_digest: str
    attempts: tuple[AttemptStatus, ...] = Field((), description="The last ten.")
    checkpoint: CheckpointStatus | None = Field(None, description="The final one, once committed.")
    phase: str = Field("", description="What the live attempt does: loading, sampling, training, evaluating, saving.")
    step: int = 0
    total_steps: int = Field(0, description="0 while unknown.")
    eta_seconds: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)


class ProvenanceStatus(Reported):
    """What is needed to make the same again."""

    seed: int = 0
    config_digests: dict[str, str] = Field(default_factory=dict, description="By stage.")
    versions: dict[str, str] = Field(default_factory=dict, description="Package versions of the last committed checkpoint.")


class PrismRunStatus(Reported):
    """All that is known about a run."""

    observed_generation: int = 0
    summary: Summary = Field("Pending", description="The STATUS column.")
    reason: str = ""
    message: str = Field("", description="One sentence for people: what goes on, or what to do.")
    stage: str = Field("", description="The current stage; empty when finished.")
    progress: int = Field(0, ge=0, le=100, description="Percent of the run.")
    attempt: int = Field(0, description="Of the current stage.")
    gpus: int = Field(0, description="Of the current stage.")
    started_at: str | None = None
    finished_at: str | None = None
    conditions: tuple[Condition, ...] = ()
    stages: tuple[StageStatus, ...] = ()
    checkpoint: CheckpointStatus | None = Field(None, description="The last final one.")
    provenance: ProvenanceStatus = Field(default_factory=ProvenanceStatus)

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type."""
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Whether that condition holds."""
        condition = self.condition(type_)
        return condition is not None and condition.status == "True"
