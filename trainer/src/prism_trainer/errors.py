"""Every error a stage ends with. The sentence names the object and field, what was found, what was expected, and the way out.

PrismError                  UserError: the same attempt again would end the same way
    DataError               a data set: file, row, column
    ModelError              a model directory that does not fit its role
    StorageError            no space, no permission, no such bucket, credentials that are not accepted
        UnreachableError    ControlPlane: storage or a model hub does not answer; the same again may go well
    GangError               NodeLost: not all Ray nodes came
    PreflightError          NodeLost or UserError: the machines cannot carry the stage out
    ReplicaError            NodeLost: a process that draws responses died again after it was started anew
    CheckpointCorruptError  CheckpointCorrupt: a checkpoint is not what its manifest says
Stopped                     not an error: asked to stop, state saved, can go on
"""

from __future__ import annotations

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.report import FailureClass


class PrismError(Exception):
    """A sentence for the person who has to do something about it."""

    failure_class = FailureClass.USER_ERROR


class DataError(PrismError):
    """A data set that cannot be read as what the stage needs."""


class ModelError(PrismError):
    """A model directory that does not fit the role it is given."""


class StorageError(PrismError):
    """What is read or written has no place, no permission, or is not there."""


class UnreachableError(StorageError):
    """What is not on this machine does not answer, after many tries."""

    failure_class = FailureClass.CONTROL_PLANE


class GangError(PrismError):
    """Fewer Ray nodes than the stage needs."""

    failure_class = FailureClass.NODE_LOST


class PreflightError(PrismError):
    """The machines are not what the stage needs."""

    def __init__(self, failure_class: FailureClass, sentence: str) -> None:
        super().__init__(sentence)
        self.failure_class = failure_class


class ReplicaError(PrismError):
    """A process that draws responses is gone for good."""

    failure_class = FailureClass.NODE_LOST


class CheckpointCorruptError(PrismError):
    """A checkpoint whose content is not what its manifest says."""

    failure_class = FailureClass.CHECKPOINT_CORRUPT


class Stopped(Exception):  # noqa: N818 - an outcome, not an error
    """The stage was asked to stop and has saved what it had."""

    def __init__(self, checkpoint: CheckpointRef | None) -> None:
        super().__init__("stopped on request")
        self.checkpoint = checkpoint
