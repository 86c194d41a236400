"""Says on standard error what is being done and how long it took: a cold start takes minutes, and silence looks like a hang."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(what: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"cluster: {what}: failed after {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        raise
    print(f"cluster: {what}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
