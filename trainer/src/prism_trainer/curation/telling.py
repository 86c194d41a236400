"""A line of progress: one that is written over on a terminal, one every half minute elsewhere."""

from __future__ import annotations

import sys
import time

PLAIN_SECONDS = 30.0


class Progress:
    """Of rows, on stderr."""

    def __init__(self, verb: str) -> None:
        self._verb, self._started, self._told, self._first = verb, time.monotonic(), 0.0, -1

    def __call__(self, done: int, total: int, found: str) -> None:
        now = time.monotonic()
        if self._first < 0:
            self._first = done  # what an earlier start has done says nothing about how long the rest takes
            self._started = now
        on_terminal = sys.stderr.isatty()
        if not on_terminal and now - self._told < PLAIN_SECONDS and done < total:
            return
        self._told = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f", {_minutes((total - done) / rate)} left" if rate and done < total else ""
        end = "\r" if on_terminal and done < total else "\n"
        print(
            f"{self._verb}: {done:,} of {total:,} rows, {found}{left}".ljust(100 if on_terminal else 0),
            end=end,
            file=sys.stderr,
            flush=True,
        )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
