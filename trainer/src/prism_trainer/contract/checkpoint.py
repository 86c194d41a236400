"""A checkpoint is a folder with a `manifest.json`, written last. No manifest, no checkpoint.

step-000040/
    policy/            a Hugging Face directory, safetensors
    discriminator/     the same, where the stage trains one
    results/           what an evaluation found
    state/             optimizer and data position, where the stage can go on from here
    manifest.json
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from prism_trainer.contract.schema import Frozen, digest_of

MANIFEST = "manifest.json"
Role = Literal["policy", "discriminator", "results"]


class FileEntry(Frozen):
    """One payload file."""

    path: str = Field(description="Relative to the checkpoint, with forward slashes.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the content.")


class Parent(Frozen):
    """An input the checkpoint was made from."""

    stage: str = Field(description="Stage that made it, or `model` for the base model.")
    digest: str = Field(description="Digest of its manifest.")


class Provenance(Frozen):
    """What is worth knowing and does not identify the checkpoint, so that it is outside the digest."""

    attempt: int = Field(ge=1, description="Attempt that committed it.")
    created_at: str = Field(description="UTC, RFC 3339.")
    seconds: float = Field(ge=0, description="Training time of the stage up to here, over all attempts.")
    versions: dict[str, str] = Field(default_factory=dict, description="Package versions.")
    image: str | None = Field(None, description="Container image, where there is one.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Last metrics.")


class CheckpointManifest(Frozen):
    """Everything needed to trust a checkpoint, and the chain back to the base model."""

    version: Literal[1] = 1
    run: str = Field(description="Name of the PrismRun.")
    stage: str = Field(description="Stage that made it.")
    kind: str = Field(description="Kind of that stage.")
    step: int = Field(ge=0, description="Optimizer steps taken.")
    final: bool = Field(description="Whether the stage is complete with it.")
    config_digest: str = Field(description="Digest of the stage's configuration, inputs and data.")
    seed: int = Field(description="Seed of the run.")
    parents: tuple[Parent, ...] = Field((), description="Inputs.")
    data: dict[str, str] = Field(default_factory=dict, description="Digest of each data file, by its address.")
    files: tuple[FileEntry, ...] = Field(min_length=1, description="Payload, sorted by path.")
    architectures: dict[Role, str] = Field(default_factory=dict, description="Model class in each folder.")
    provenance: Provenance

    @property
    def digest(self) -> str:
        """Of all that identifies the checkpoint; equal training gives equal digests whatever interrupted it."""
        return digest_of(self.model_dump(mode="json", exclude={"provenance"}))

    def to_file(self) -> dict[str, Any]:
        """As it stands in `manifest.json`; the digest is repeated there for people."""
        return {**self.to_dict(), "digest": self.digest}


class CheckpointRef(Frozen):
    """Where a checkpoint is, and which one it must be."""

    stage: str = Field(description="Stage that made it, or `model` for the base model.")
    uri: str = Field(description="Folder that holds manifest.json, or a plain Hugging Face directory.")
    digest: str | None = Field(None, description="Digest of its manifest; none only for a directory that has none.")
    step: int = Field(0, ge=0, description="Optimizer steps taken.")
    revision: str | None = Field(None, description="Revision, for a Hugging Face id.")
