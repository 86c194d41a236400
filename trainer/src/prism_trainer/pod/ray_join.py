"""Joining the pod's Ray, for the two processes that do: `ray_nodes` counts, `ray_watch` listens.

Nowhere else does the container's own code import ray, and never in the supervisor: joining a cluster that is not there yet can take long,
and leaves threads behind. The token comes from the environment (RAY_AUTH_MODE, RAY_AUTH_TOKEN).
"""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Any

NO_RAY = 3
"""Exit code: this image has no ray."""
CONNECT_SECONDS = 2.0


def join(address: str) -> Any:
    """The module ray, connected. The process ends here, with a line on stderr, where there is no ray (NO_RAY) or nobody listens (1)."""
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        raise SystemExit(NO_RAY) from error
    if not _listens(address):
        raise SystemExit(f"nobody listens at {address} yet")
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    return ray


def _listens(address: str) -> bool:
    """Asked first, because ray.init waits for minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return True  # `auto` and the like, which only ray can look up
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False
