"""Where the test cluster keeps things: what is built (kept, named by version) and what runs (gone after `down`)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/prism-test-cluster`: binaries, the images' base, build layers, containerd's image store."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "prism-test-cluster"


def binaries_dir() -> Path:
    return cache_dir() / "bin"


def running_dir() -> Path:
    """One folder a running cluster: `node`, and `api-...` for each light one."""
    return cache_dir() / "running"


def containerd_dir(node: str) -> Path:
    """containerd's image store: it outlives the node, because importing gigabytes takes longer than everything else."""
    return cache_dir() / "containerd" / node


def image_build_dir() -> Path:
    return cache_dir() / "buildah"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process of this machine at a time; the others wait. A process that dies lets go."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache_dir() / f"{name}.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
