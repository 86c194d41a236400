"""The status of a PrismRun, as the API server holds it and `status.json` spells it. Bounded: attempts beyond the last ten are dropped."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from prism_operator.api.settings import MAX_STAGE_NAME, MAX_STAGES
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

    type: str = Field(description="What is observed, in CamelCase; the key.")
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(description="Why, one word for machines.")
    message: str = Field("", description="Why, a sentence for people.")
    last_transition_time: str = Field(description="When `status` last changed; other changes leave it.")
    observed_generation: int = Field(0, description="Generation of the spec it was made from; kubectl wait refuses older ones.")


class AttemptStatus(Reported):
    """How one attempt went."""

    number: int = Field(description="Counts from 1; part of every path the attempt writes to.")
    outcome: str = Field(description="Running, Succeeded, Failed or Stopped.")
    failure_class: str | None = Field(None, description="Of a failed one: which retry budget it took from.")
    message: str = Field("", description="What went wrong, a sentence for people.")
    started_at: str | None = Field(None, description="When it was created.")
    finished_at: str | None = Field(None, description="When its last process had ended.")
    gpu_seconds: float = Field(0.0, description="GPUs held, times seconds.")
    resume_from: str | None = Field(None, description="Checkpoint it went on from.")
    config_digest: str | None = Field(None, description="Of the stage's configuration when it was started.")
    cluster: str | None = Field(None, description="RayCluster it ran in.")
    stop_reason: str | None = Field(None, description="Why we stopped it.")
    restarts: dict[str, int] = Field(default_factory=dict, description="Failures that were retried in its own pods, by class.")


class CheckpointStatus(Reported):
    """A committed checkpoint."""

    uri: str = Field(description="Its folder.")
    digest: str | None = Field(None, description="Of its manifest; the next stage verifies it.")
    step: int = Field(0, description="Optimizer step it was taken at.")
    attempt: int = Field(0, description="That committed it; 0 for one that a stage is skipped with.")
    config_digest: str | None = Field(None, description="Of the stage's configuration it was made with.")
    created_at: str | None = Field(None, description="When it was committed.")


class StageStatus(Reported):
    """One stage."""

    name: str = Field(max_length=MAX_STAGE_NAME, description="As in the spec; the key.")
    kind: str = Field(description="As in the spec.")
    state: StageState = Field(description="What goes on.")
    config_digest: str = Field(description="Of all that determines its result: configuration, data, inputs, seed.")
    attempts: tuple[AttemptStatus, ...] = Field((), description="The last ten.")
    forgotten: dict[str, int] = Field(default_factory=dict, description="Failures of attempts before the last ten, by class.")
    gpu_seconds: float = Field(0.0, description="Of all its attempts.")
    checkpoint: CheckpointStatus | None = Field(None, description="The final one, once committed.")
    phase: str = Field("", description="What the live attempt does: loading, sampling, training, evaluating, saving.")
    step: int = Field(0, description="Optimizer steps done.")
    total_steps: int = Field(0, description="0 while unknown.")
    eta_seconds: float | None = Field(None, description="Estimated time left in the stage.")
    metrics: dict[str, float] = Field(default_factory=dict, description="A few of the latest, for people to watch.")


class ProvenanceStatus(Reported):
    """What is needed to make the same again."""

    seed: int = Field(0, description="Of the run.")
    config_digests: dict[str, str] = Field(default_factory=dict, description="By stage.")
    versions: dict[str, str] = Field(default_factory=dict, description="Package versions of the last committed checkpoint.")
    images: dict[str, str] = Field(default_factory=dict, description="Image with digest, by stage.")
    data: dict[str, str] = Field(default_factory=dict, description="Digest of each data file, by its address.")


class PrismRunStatus(Reported):
    """All that is known about a run."""

    observed_generation: int = Field(0, description="Generation of the spec it was made from.")
    summary: Summary = Field("Pending", description="The STATUS column.")
    reason: str = Field("", description="Why, one word for machines.")
    message: str = Field("", description="One sentence for people: what goes on, or what to do.")
    stage: str = Field("", description="The current stage; empty when finished.")
    progress: int = Field(0, ge=0, le=100, description="Percent of the run.")
    attempt: int = Field(0, description="Of the current stage.")
    gpus: int = Field(0, description="Of the current stage.")
    gpu_seconds: float = Field(0.0, description="Of all attempts.")
    cluster: str | None = Field(None, description="RayCluster of the live attempt.")
    started_at: str | None = Field(None, description="When the first attempt was started.")
    finished_at: str | None = Field(None, description="When the run ended.")
    conditions: tuple[Condition, ...] = Field((), description="What is known, each with its reason; one per type.")
    stages: tuple[StageStatus, ...] = Field((), max_length=MAX_STAGES, description="In the order of the spec.")
    checkpoint: CheckpointStatus | None = Field(None, description="The last final one.")
    provenance: ProvenanceStatus = Field(default_factory=ProvenanceStatus, description="To make the same again.")

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type."""
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Whether that condition holds."""
        condition = self.condition(type_)
        return condition is not None and condition.status == "True"
