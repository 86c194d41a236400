"""What every training stage does around its own steps: open inputs, resume, save, commit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from prism_trainer.checkpoints import (
    Writer,
    commit_checkpoint,
    digest_plain_model,
    read_manifest,
    remove_checkpoint,
    verify_checkpoint,
)
from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef, FileEntry, Parent, Provenance
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.pod import IMAGE
from prism_trainer.contract.schema import digest_of
from prism_trainer.data.sources import digest_sources
from prism_trainer.engines.local.models import Processor, save_model
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.errors import ModelError, PrismError, Stopped
from prism_trainer.reporting import Reporter, utc_now

NOTES = "notes.json"
PACKAGES = ("torch", "transformers", "safetensors", "prism-trainer", "deepspeed", "llamafactory", "lmms-eval", "ray", "verl", "vllm")
"""Whose versions a manifest gives, as far as they are installed: each image has its own libraries."""


@dataclass(frozen=True)
class Trained:
    """A model that a stage trains, with what it needs to go on."""

    model: PreTrainedModel
    processor: Processor
    optimizer: StageOptimizer


class Session:
    """One attempt: verified inputs, the checkpoint to go on from, and the only place that writes checkpoints."""

    def __init__(self, job: StageJob, reporter: Reporter) -> None:
        self.job, self.reporter = job, reporter
        self._data = digest_sources(job.data)
        self._parents = tuple(self._open(ref) for ref in job.inputs.values())
        self._resumed = self._verify_resume()
        self._seconds_before = self._resumed.provenance.seconds if self._resumed else 0.0

    @property
    def first_step(self) -> int:
        return self._resumed.step if self._resumed else 0

    def input_dir(self, role: str, part: str | None = None) -> Path:
        """The Hugging Face directory of an input: inside a checkpoint the folder of the role, else the directory itself."""
        ref = self.job.inputs[role]
        inside = Path(ref.uri) / (part or role)
        if ref.digest is None:
            return Path(ref.uri)
        if not inside.is_dir():
            raise ModelError(f"checkpoint '{ref.uri}' of stage '{ref.stage}' has no {part or role}; give a checkpoint that holds one")
        return inside

    def start_dir(self, role: str) -> Path:
        """Where `role` is loaded from: the checkpoint being resumed, else the input."""
        if self.job.resume_from is not None:
            return Path(self.job.resume_from.uri) / role
        return self.input_dir(role)

    def restore(self, trained: Mapping[str, Trained]) -> None:
        """Optimizer states of the checkpoint being resumed; nothing on a fresh start."""
        if self.job.resume_from is None:
            return
        for role, one in trained.items():
            one.optimizer.restore(Path(self.job.resume_from.uri) / "state" / f"{role}.safetensors")

    def read_note(self, name: str, default: int) -> int:
        """A count that the checkpoint being resumed was given in `after_step`; `default` where there is none."""
        if self.job.resume_from is None:
            return default
        file = Path(self.job.resume_from.uri) / "state" / NOTES
        return int(json.loads(file.read_text()).get(name, default)) if file.is_file() else default

    def after_step(
        self, step: int, trained: Mapping[str, Trained], total_steps: int, save_every: int, notes: Mapping[str, int] | None = None
    ) -> None:
        """Save when due; when asked to stop, save and leave. `notes` are counts that cannot be told from the step."""
        if self.reporter.stop_requested and step < total_steps:
            raise Stopped(self.save(step, trained, final=False, notes=notes))
        if step % save_every == 0 and step < total_steps:
            self.save(step, trained, final=False, notes=notes)

    def save(
        self,
        step: int,
        trained: Mapping[str, Trained],
        *,
        final: bool,
        metrics: dict[str, float] | None = None,
        notes: Mapping[str, int] | None = None,
    ) -> CheckpointRef:
        """Commit models, and for a checkpoint to go on from, their optimizers."""
        payload: dict[str, Writer] = {role: _model_writer(one) for role, one in trained.items()}
        if not final:
            payload["state"] = lambda folder: _write_state(folder, trained, notes or {})
        architectures = {role: type(one.model).__name__ for role, one in trained.items()}
        return self.commit(step, payload, architectures, final=final, metrics=metrics)

    def commit(
        self, step: int, payload: dict[str, Writer], architectures: dict[str, str], *, final: bool, metrics: dict[str, float] | None = None
    ) -> CheckpointRef:
        """Commit any payload as this stage's checkpoint at `step`."""
        folder = Path(self.job.output_uri) / f"step-{step:06d}"

        def describe(files: tuple[FileEntry, ...]) -> CheckpointManifest:
            return CheckpointManifest(
                run=self.job.run,
                stage=self.job.stage,
                kind=self.job.config.kind,
                step=step,
                final=final,
                config_digest=self.job.config_digest,
                seed=self.job.seed,
                parents=self._parents,
                data=self._data,
                files=files,
                architectures=architectures,
                provenance=self._provenance(metrics or {}),
            )

        with self.reporter.during("saving"):
            ref = commit_checkpoint(folder, payload, describe)
            if not final:
                self._forget_older()
        return ref

    @property
    def identity(self) -> str:
        """Digest of all that the stage's result depends on: configuration, inputs and data as they are now."""
        return digest_of([self.job.config_digest, [parent.digest for parent in self._parents], self._data])

    @property
    def seconds(self) -> float:
        """Training time of the stage over all attempts."""
        return self._seconds_before + self.reporter.seconds

    def _provenance(self, metrics: dict[str, float]) -> Provenance:
        return Provenance(
            attempt=self.job.attempt,
            created_at=utc_now(),
            seconds=round(self.seconds, 3),
            versions=_versions(),
            image=os.environ.get(IMAGE),
            metrics=metrics,
        )

    def _open(self, ref: CheckpointRef) -> Parent:
        if ref.digest is None:
            return Parent(stage=ref.stage, digest=digest_plain_model(Path(ref.uri)))
        return Parent(stage=ref.stage, digest=verify_checkpoint(ref).digest)

    def _verify_resume(self) -> CheckpointManifest | None:
        if self.job.resume_from is None:
            return None
        manifest = verify_checkpoint(self.job.resume_from)
        changes = "; ".join(self._changes_since(manifest))
        if changes:
            uri = self.job.resume_from.uri
            raise PrismError(
                f"stage '{self.job.stage}' cannot go on from checkpoint '{uri}', which was made from other content: {changes}; "
                f"restore what changed, or remove '{uri}' to start the stage over"
            )
        return manifest

    def _changes_since(self, manifest: CheckpointManifest) -> Iterator[str]:
        """What the checkpoint was made from and is different now. Which inputs and data there are is settled by the config digest."""
        for uri in sorted({*manifest.data, *self._data}):
            was, now = manifest.data.get(uri, "none"), self._data.get(uri, "none")
            if was != now:
                yield f"data set '{uri}' is {now[:19]}, expected {was[:19]}"
        for (role, ref), before, parent in zip(self.job.inputs.items(), manifest.parents, self._parents, strict=False):
            if before != parent:
                yield f"input '{role}' at '{ref.uri}' is {parent.digest[:19]}, expected {before.digest[:19]} of '{before.stage}'"

    def _forget_older(self) -> None:
        """Remove this attempt's resumable checkpoints but the newest `keep_intermediate`.

        After a final one nothing is removed here: what is left then is for whoever runs the stages, who may want to keep some.
        """
        folders = Path(self.job.output_uri).glob("step-*")
        manifests = [(manifest, folder) for folder in folders if (manifest := read_manifest(folder))]
        resumable = sorted((manifest.step, folder) for manifest, folder in manifests if not manifest.final)
        for _, folder in resumable[: -self.job.keep_intermediate]:
            remove_checkpoint(folder)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _model_writer(trained: Trained) -> Writer:
    return lambda folder: save_model(trained.model, trained.processor, folder)


def _write_state(folder: Path, trained: Mapping[str, Trained], notes: Mapping[str, int]) -> None:
    for role, one in trained.items():
        one.optimizer.save(folder / f"{role}.safetensors")
    if notes:
        (folder / NOTES).write_text(json.dumps(notes))
