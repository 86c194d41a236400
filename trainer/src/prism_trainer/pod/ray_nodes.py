"""`python -m prism_trainer.pod.ray_nodes ADDRESS`: how many Ray nodes are alive, as the last line of output.

The only place in the container's own code that imports ray, and a process of its own: joining a cluster that is not there yet can take
long, and leaves threads behind. The token comes from the environment (RAY_AUTH_MODE, RAY_AUTH_TOKEN).
"""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Any

NO_RAY = 3
"""Exit code: this image has no ray."""
CONNECT_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return NO_RAY
    if not _listens(arguments[0]):
        print(f"nobody listens at {arguments[0]} yet", file=sys.stderr)
        return 1
    ray.init(address=arguments[0], log_to_driver=False, logging_level="ERROR")
    print(sum(1 for node in ray.nodes() if node["Alive"]))
    return 0


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
