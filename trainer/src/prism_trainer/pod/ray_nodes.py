"""`python -m prism_trainer.pod.ray_nodes ADDRESS`: the Ray nodes that are alive, as the last line of output.

The line is JSON: `[{"node": "10.0.0.1", "gpus": 8, "cpus": 44}, ...]`, by address.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prism_trainer.pod.ray_join import join


def main(arguments: list[str]) -> int:
    found = [_facts(node) for node in join(arguments[0]).nodes() if node["Alive"]]
    print(json.dumps(sorted(found, key=lambda one: str(one["node"]))))
    return 0


def _facts(node: dict[str, Any]) -> dict[str, str | int]:
    """In Ray's counters: what it was told to count, or found."""
    counted = node["Resources"]
    return {"node": node["NodeManagerAddress"], "gpus": int(counted.get("GPU", 0)), "cpus": int(counted.get("CPU", 0))}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
