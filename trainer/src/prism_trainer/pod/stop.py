"""Asked to stop: SIGTERM from the kubelet, SIGINT from a terminal. Whoever waits in the container waits through here."""

from __future__ import annotations

import signal
import threading

from prism_trainer.errors import Stopped


class Stop:
    """Takes note of the first signal; the kubelet sends no second one but SIGKILL."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def pause(self, seconds: float) -> None:
        """Wait that long; Stopped at once when asked to stop, for there is nothing to save while nothing trains."""
        if self._event.wait(seconds):
            raise Stopped(None)

    def check(self) -> None:
        self.pause(0)
