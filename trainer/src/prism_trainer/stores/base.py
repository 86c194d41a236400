"""The seam between what a stage's container does and where its checkpoints lie."""

from __future__ import annotations

from typing import Protocol

from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef


class Store(Protocol):
    """All raise StorageError or CheckpointCorruptError, as sentences."""

    def checkpoint_folders(self, uri: str) -> list[str]:
        """Every folder two below `uri` (`attempt-1/step-000040`), committed or not; empty where there is nothing."""

    def read_manifest(self, uri: str) -> CheckpointManifest | None:
        """None where there is none, so no checkpoint."""

    def verify(self, ref: CheckpointRef) -> CheckpointManifest:
        """Read and hash the whole checkpoint; the manifest, if it is the one `ref` names and all is there."""

    def remove(self, uri: str) -> None:
        """The manifest goes first, so that a half-removed checkpoint is none."""
