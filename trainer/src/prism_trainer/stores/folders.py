"""Checkpoints in folders: a volume that every pod mounts, or a disk."""

from __future__ import annotations

from pathlib import Path

from prism_trainer.checkpoints import read_manifest, remove_checkpoint, verify_checkpoint
from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef


class FolderStore:
    """A `Store` over paths."""

    def checkpoint_folders(self, uri: str) -> list[str]:
        return sorted(str(path) for path in Path(uri).glob("*/*") if path.is_dir())

    def read_manifest(self, uri: str) -> CheckpointManifest | None:
        return read_manifest(Path(uri))

    def verify(self, ref: CheckpointRef) -> CheckpointManifest:
        return verify_checkpoint(ref)

    def remove(self, uri: str) -> None:
        remove_checkpoint(Path(uri))
