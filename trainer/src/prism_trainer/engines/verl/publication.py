"""A stage's checkpoint out of sharded workers, committed by the same code as engine local's, and the way back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_trainer.checkpoints import Writer
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.engines.local.session import NOTES, Session
from prism_trainer.errors import Stopped


@dataclass(frozen=True)
class Role:
    """A model that workers train: whoever has `write_weights`, `write_optimizer` and `read_optimizer` on all ranks."""

    workers: Any
    architecture: str


@dataclass(frozen=True)
class Publication:
    """policy/ (and discriminator/) as Hugging Face directories; state/ with optimizers and notes, in engine local's files."""

    session: Session
    total_steps: int
    save_every: int

    def restore(self, roles: dict[str, Role]) -> None:
        """Optimizer states of the checkpoint being resumed. Weights were loaded from it already."""
        resumed = self.session.job.resume_from
        if resumed is None:
            return
        for name, role in roles.items():
            role.workers.read_optimizer(str(Path(resumed.uri) / "state" / f"{name}.safetensors"))

    def after_step(self, step: int, roles: dict[str, Role], notes: dict[str, int]) -> None:
        """Save when due; when asked to stop, save and leave."""
        if step == self.total_steps:
            return
        stop = self.session.reporter.stop_requested
        if stop or step % self.save_every == 0:
            ref = self._commit(step, roles, notes=notes)
            if stop:
                raise Stopped(ref)

    def finish(self, roles: dict[str, Role], metrics: dict[str, float]) -> CheckpointRef:
        return self._commit(self.total_steps, roles, metrics=metrics)

    def _commit(
        self, step: int, roles: dict[str, Role], notes: dict[str, int] | None = None, metrics: dict[str, float] | None = None
    ) -> CheckpointRef:
        payload: dict[str, Writer] = {name: _weights_writer(role) for name, role in roles.items()}
        if notes is not None:
            payload["state"] = lambda folder: _write_state(folder, roles, notes)
        architectures = {name: role.architecture for name, role in roles.items()}
        return self.session.commit(step, payload, architectures, final=notes is None, metrics=metrics)


def _weights_writer(role: Role) -> Writer:
    return lambda folder: role.workers.write_weights(str(folder))


def _write_state(folder: Path, roles: dict[str, Role], notes: dict[str, int]) -> None:
    for name, role in roles.items():
        role.workers.write_optimizer(str(folder / f"{name}.safetensors"))
    (folder / NOTES).write_text(json.dumps(notes))
