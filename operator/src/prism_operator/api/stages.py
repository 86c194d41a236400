"""The stages of a PrismRun: what all have in common, and one class per kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from prism_operator.api.settings import MAX_STAGE_NAME, MAX_STAGES, Env, Image, Resources, Retries, Revision, StageDeadlines, Uri
from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig, EvaluationConfig, RlvrConfig, SftConfig
from prism_trainer.contract.job import DataSource, Engine
from prism_trainer.contract.schema import Frozen

IS_OVERLAY = "x-overlay"
"""Marks, in the JSON schema, a field whose own fields replace the run's one by one: what is left out has not the model's default."""
_OVERLAY: dict[str, Any] = {IS_OVERLAY: True}

StageName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=MAX_STAGE_NAME)]


class PinnedCheckpoint(Frozen):
    """A checkpoint that takes the place of a stage's own: the stage is skipped."""

    uri: Uri = Field(description="Checkpoint folder, a stage's folder of another run, or a Hugging Face directory or id.")
    digest: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="Digest its manifest must have.")
    revision: Revision | None = Field(None, description="Revision, for a Hugging Face id.")


class StageCommon(Frozen):
    """What every stage may say."""

    data: tuple[DataSource, ...] = Field((), max_length=100, description="Data sets; several are mixed by weight.")
    checkpoint: PinnedCheckpoint | None = Field(None, description="Skip the stage and take this checkpoint as its output.")
    engine: Engine | None = Field(None, description="Who carries the stage out; by default spec.engine.")
    resources: Resources | None = Field(None, description="Fields given here replace those of spec.resources.", json_schema_extra=_OVERLAY)
    deadlines: StageDeadlines | None = Field(
        None, description="Fields given here replace those of spec.deadlines.", json_schema_extra=_OVERLAY
    )
    retries: Retries | None = Field(None, description="Fields given here replace those of spec.retries.", json_schema_extra=_OVERLAY)
    image: Image | None = Field(None, description="Container image; by default spec.image.")
    env: Env = Field((), description="Environment variables, added to those of spec.env.")
    pod_template: dict[str, Any] | None = Field(None, description="Patch of the stage's pods, after spec.podTemplate.")


class SftStage(StageCommon):
    """Supervised fine-tuning on teacher demonstrations: makes a policy."""

    kind: Literal["sft"]
    name: StageName = Field("sft", description="Name, unique in the run.")
    config: SftConfig = Field(default_factory=SftConfig, description="Hyperparameters.")
    policy: str | None = Field(
        None, max_length=63, description="Stage whose policy it starts from, or `model`; by default the nearest earlier."
    )


class DiscriminatorStage(StageCommon):
    """Upcycling and pairwise warm-up: makes a discriminator."""

    kind: Literal["discriminator"]
    name: StageName = Field("discriminator", description="Name, unique in the run.")
    config: DiscriminatorConfig = Field(default_factory=DiscriminatorConfig, description="Hyperparameters.")
    policy: str | None = Field(
        None, max_length=63, description="Stage whose policy it is made from, or `model`; by default the nearest earlier."
    )


class AlignmentStage(StageCommon):
    """On-policy adversarial distillation: makes a policy, and trains the discriminator on."""

    kind: Literal["alignment"]
    name: StageName = Field("alignment", description="Name, unique in the run.")
    config: AlignmentConfig = Field(default_factory=AlignmentConfig, description="Hyperparameters.")
    policy: str | None = Field(
        None, max_length=63, description="Stage whose policy it starts from, or `model`; by default the nearest earlier."
    )
    discriminator: str | None = Field(
        None, max_length=63, description="Stage whose discriminator it uses; by default the nearest earlier discriminator."
    )


class RlvrStage(StageCommon):
    """Reinforcement learning with a verifiable reward: makes a policy."""

    kind: Literal["rlvr"]
    name: StageName = Field("rlvr", description="Name, unique in the run.")
    config: RlvrConfig = Field(default_factory=RlvrConfig, description="Hyperparameters.")
    policy: str | None = Field(
        None, max_length=63, description="Stage whose policy it starts from, or `model`; by default the nearest earlier."
    )


class EvaluationStage(StageCommon):
    """Accuracy, format and length of several checkpoints: makes results."""

    kind: Literal["evaluation"]
    name: StageName = Field("evaluation", description="Name, unique in the run.")
    config: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Hyperparameters.")
    checkpoints: tuple[Annotated[str, Field(max_length=63)], ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_STAGES,
        description="Stages whose policies are evaluated, or `model`; by default every earlier one that makes a policy.",
    )


Stage = Annotated[SftStage | DiscriminatorStage | AlignmentStage | RlvrStage | EvaluationStage, Field(discriminator="kind")]
AnyStage = SftStage | DiscriminatorStage | AlignmentStage | RlvrStage | EvaluationStage
