"""A stage starts when all its Ray nodes are there with all their GPUs, and not before: half a gang would hold its GPUs and wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from prism_trainer.errors import GangError
from prism_trainer.pod.board import Board
from prism_trainer.pod.children import ask
from prism_trainer.pod.places import Places
from prism_trainer.pod.ray_join import NO_RAY
from prism_trainer.pod.stop import Stop

COUNT_SECONDS = 30.0
"""For one count; joining a head that only just starts can hang."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayNode:
    """One machine, as Ray knows it."""

    node: str
    """Address."""
    gpus: int
    cpus: int


Nodes = tuple[RayNode, ...]
_NODES: TypeAdapter[Nodes] = TypeAdapter(Nodes)


def wait_for_gang(num_nodes: int, gpus_per_node: int, seconds: float, places: Places, stop: Stop, board: Board) -> None:
    """Until `num_nodes` Ray nodes with `gpus_per_node` GPUs each are alive; GangError after `seconds`."""
    board.phase("waiting for workers")
    end = time.monotonic() + seconds
    came: Nodes = ()
    why = ""
    while time.monotonic() < end:
        answer = ask((*places.ray_nodes, places.ray_address), min(COUNT_SECONDS, end - time.monotonic()), stop)
        if answer.exit_code == NO_RAY:
            return _without_ray(num_nodes, gpus_per_node)
        alive = _read(answer.line) if answer.exit_code == 0 else None
        if alive is not None:
            came, why = max(came, alive, key=_size), ""
            if is_whole(alive, num_nodes, gpus_per_node):
                log.info("all %d Ray nodes are there: %s", num_nodes, in_words(alive))
                return None
        elif not came:
            why = f" ({answer.complaint[:200]})" if answer.complaint else why
        board.advance()
        stop.pause(min(places.gang_tick_seconds, max(0.0, end - time.monotonic())))
    raise GangError(
        f"{_what_came(came, num_nodes, gpus_per_node, places.ray_address)} within {seconds:g} s{why}; {_way_out(came, num_nodes)}"
    )


def is_whole(nodes: Sequence[RayNode], num_nodes: int, gpus_per_node: int) -> bool:
    """As many nodes as are needed have all their GPUs."""
    return sum(node.gpus >= gpus_per_node for node in nodes) >= num_nodes


def in_words(nodes: Sequence[RayNode]) -> str:
    """`10.0.0.1 with 8 GPUs and 10.0.0.2 with 7`."""
    return " and ".join(f"{node.node} with {node.gpus} GPUs" for node in nodes) or "none"


def _what_came(came: Nodes, num_nodes: int, gpus_per_node: int, address: str) -> str:
    nodes = f"{len(came)} of {num_nodes} Ray nodes at {address}"
    if not gpus_per_node:
        return f"{nodes} came"
    gpus = f"{sum(node.gpus for node in came)} of {num_nodes * gpus_per_node} GPUs"
    return f"{nodes} with {gpus} came ({in_words(came)}, and {gpus_per_node} on each are needed)"


def _way_out(came: Nodes, num_nodes: int) -> str:
    if len(came) >= num_nodes:
        return "look at the GPUs of the nodes that have too few, and at resources.gpusPerNode"
    return "look at the events of the pods, and raise deadlines.startSeconds if they only are slow"


def _size(nodes: Nodes) -> tuple[int, int]:
    return len(nodes), sum(node.gpus for node in nodes)


def _read(line: str) -> Nodes | None:
    try:
        return _NODES.validate_json(line)
    except ValidationError:
        return None


def _without_ray(num_nodes: int, gpus_per_node: int) -> None:
    if num_nodes > 1:
        raise GangError(f"the stage needs {num_nodes} Ray nodes, and its image has no ray to count them; give an image with ray")
    if gpus_per_node:
        raise GangError(f"the stage needs {gpus_per_node} GPUs of Ray, and its image has no ray; give an image with ray")
    log.info("this image has no ray, and the stage needs one machine: there is nothing to wait for")
