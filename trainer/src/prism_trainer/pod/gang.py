"""A stage starts when all its Ray nodes are there, and not before: half a gang would hold its GPUs and wait."""

from __future__ import annotations

import logging
import time

from prism_trainer.errors import GangError
from prism_trainer.pod.board import Board
from prism_trainer.pod.children import ask
from prism_trainer.pod.places import Places
from prism_trainer.pod.ray_nodes import NO_RAY
from prism_trainer.pod.stop import Stop

COUNT_SECONDS = 30.0
"""For one count; joining a head that only just starts can hang."""

log = logging.getLogger(__name__)


def wait_for_gang(num_nodes: int, seconds: float, places: Places, stop: Stop, board: Board) -> None:
    """Until `num_nodes` Ray nodes are alive; GangError after `seconds`."""
    board.phase("waiting for workers")
    end = time.monotonic() + seconds
    came, why = 0, ""
    while time.monotonic() < end:
        answer = ask((*places.ray_nodes, places.ray_address), min(COUNT_SECONDS, end - time.monotonic()), stop)
        if answer.exit_code == NO_RAY:
            return _without_ray(num_nodes)
        if answer.exit_code == 0 and answer.line.isdigit():
            alive, why = int(answer.line), ""
            came = max(came, alive)
            if alive >= num_nodes:
                log.info("all %d Ray nodes are there", num_nodes)
                return None
        elif not came:
            why = f" ({answer.complaint[:200]})" if answer.complaint else why
        board.advance()
        stop.pause(min(places.gang_tick_seconds, max(0.0, end - time.monotonic())))
    raise GangError(
        f"{came} of {num_nodes} Ray nodes at {places.ray_address} came within {seconds:g} s{why}; look at the events of the pods, "
        "and raise deadlines.startSeconds if they only are slow"
    )


def _without_ray(num_nodes: int) -> None:
    if num_nodes > 1:
        raise GangError(f"the stage needs {num_nodes} Ray nodes, and its image has no ray to count them; give an image with ray")
    log.info("this image has no ray, and the stage needs one machine: there is nothing to wait for")
