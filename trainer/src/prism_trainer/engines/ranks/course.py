"""What the driver does while the ranks train: pass on how it goes, commit what they saved, ask them to stop."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from prism_trainer.checkpoints import Writer
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.ranks.messages import Listener
from prism_trainer.errors import Stopped

Payload = Callable[[Path, bool], dict[str, Writer]]
"""Of what was saved in a folder: the parts of a checkpoint, for a final one without state."""


class Course:
    """The driver alone commits, and the ranks train on meanwhile."""

    last: CheckpointRef | None = None
    is_final = False

    def __init__(self, session: Session, folder: Path, payload: Payload, architectures: Mapping[str, str]) -> None:
        self._session, self._payload, self._architectures = session, payload, architectures
        self._listener = Listener(folder)

    def watch(self) -> None:
        """Called a few times a second."""
        reporter = self._session.reporter
        if reporter.stop_requested:
            self._listener.ask_to_stop()
        for message in self._listener.heard():
            match message["what"]:
                case "phase":
                    reporter.phase(message["name"])
                case "begin":
                    reporter.begin(message["first_step"], message["total_steps"])
                case "step":
                    reporter.step(message["step"], message["metrics"])
                case "saved":
                    self._commit(message["step"], Path(message["folder"]), message["is_final"], message.get("metrics"))

    def outcome(self) -> CheckpointRef:
        """After the end of all ranks."""
        if self.last is None or not self.is_final:
            raise Stopped(self.last)
        return self.last

    def _commit(self, step: int, saved: Path, is_final: bool, metrics: dict[str, float] | None) -> None:
        payload = self._payload(saved, is_final)
        self.last = self._session.commit(step, payload, dict(self._architectures), final=is_final, metrics=metrics)
        self.is_final = is_final
        shutil.rmtree(saved)
