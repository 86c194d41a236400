"""What `ray_watch` tells while a trainer runs. It is an extra pair of eyes: where it cannot look, the trainer goes on without it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

from pydantic import ValidationError

from prism_trainer.contract.preflight import Finding


class LostWorkers:
    """The first that was told."""

    def __init__(self, output: IO[bytes] | None) -> None:
        self._output = output
        self._first: Finding | None = None

    def first(self) -> Finding | None:
        """As of now."""
        if self._first is None and self._output is not None:
            self._output.seek(0)
            for line in self._output.read().splitlines():
                with contextlib.suppress(ValidationError):
                    self._first = self._first or Finding.model_validate_json(line)
        return self._first


@contextlib.contextmanager
def watching(command: Sequence[str] | None, address: str) -> Iterator[LostWorkers]:
    """For as long as a trainer runs; None watches nothing."""
    if command is None:
        yield LostWorkers(None)
        return
    with tempfile.NamedTemporaryFile() as output, open(output.name, "rb") as reader:  # noqa: PTH123 - a second position in the same file
        child = subprocess.Popen(
            [*command, address], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield LostWorkers(reader)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
