"""The Ray that a stage stands in: the cluster it was given, or one of its own on this machine that lives as long as the stage."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from prism_trainer.errors import GangError

LOCAL = "local"
VLLM_SOCKETS = "VLLM_RPC_BASE_PATH"


@contextlib.contextmanager
def connected(address: str | None, options: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[None]:
    """`options` of ray.init for either, `own` for one of our own."""
    import ray

    with contextlib.ExitStack() as stack:
        if address:
            join(address, **options)
        else:
            # Ray's socket names are long and must stay below 108 characters, so the folder is short, wherever TMPDIR points
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True))
            stack.enter_context(_sockets_of_vllm_in(folder))
            join(LOCAL, include_dashboard=False, _temp_dir=folder, **options, **own)
        stack.callback(ray.shutdown)
        yield


@contextlib.contextmanager
def _sockets_of_vllm_in(folder: str) -> Iterator[None]:
    """For what Ray starts here: vLLM makes a socket for each engine in the temporary folder and leaves it there."""
    before = os.environ.get(VLLM_SOCKETS)
    os.environ[VLLM_SOCKETS] = folder
    try:
        yield
    finally:
        del os.environ[VLLM_SOCKETS]
        if before is not None:
            os.environ[VLLM_SOCKETS] = before


def join(address: str, **options: Any) -> None:
    """`ray.init`. Ray takes SIGTERM for itself, and would end the process where it stands; it goes back to the reporter, who lets the stage
    save and stop.

    Raises:
        GangError: where a Ray of its own does not come up in Ray's 30 s, which Ray says in an exception without a class. What it started
            ends with the attempt.
    """
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=address, **options)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        raise GangError("Ray did not come up on this machine within 30 s; free some of its cores or memory, and run again") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
