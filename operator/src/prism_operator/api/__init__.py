"""The schema of a PrismRun: written once, read by the planner, the CRD generator and the command line."""

from prism_operator.api.run import Metadata, PrismRun, RunSpec
from prism_operator.api.settings import Deadlines, EnvVar, Resources, Retention, Retries, StageDeadlines, Storage
from prism_operator.api.stages import (
    AlignmentStage,
    AnyStage,
    DiscriminatorStage,
    EvaluationStage,
    PinnedCheckpoint,
    RlvrStage,
    SftStage,
)
from prism_operator.api.status import (
    MAX_ATTEMPTS_SHOWN,
    MAX_MESSAGE_CHARACTERS,
    AttemptStatus,
    CheckpointStatus,
    Condition,
    ConditionStatus,
    PrismRunStatus,
    ProvenanceStatus,
    StageState,
    StageStatus,
    Summary,
)

__all__ = [
    "MAX_ATTEMPTS_SHOWN",
    "MAX_MESSAGE_CHARACTERS",
    "AlignmentStage",
    "AnyStage",
    "AttemptStatus",
    "CheckpointStatus",
    "Condition",
    "ConditionStatus",
    "Deadlines",
    "DiscriminatorStage",
    "EnvVar",
    "EvaluationStage",
    "Metadata",
    "PinnedCheckpoint",
    "PrismRun",
    "PrismRunStatus",
    "ProvenanceStatus",
    "Resources",
    "Retention",
    "Retries",
    "RlvrStage",
    "RunSpec",
    "SftStage",
    "StageDeadlines",
    "StageState",
    "StageStatus",
    "Storage",
    "Summary",
]
