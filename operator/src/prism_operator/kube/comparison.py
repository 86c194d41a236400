"""A silent watch looks like a quiet cluster: so now and then all there is gets listed, without content, and compared with the inventory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prism_operator.errors import ClusterError
from prism_operator.kube.controller import Controller
from prism_operator.kube.door import CLUSTERS, CORE, RUNS
from prism_operator.kube.health import BEHIND_SECONDS, Health
from prism_operator.kube.inventory import RunKey
from prism_operator.names import PLURAL, RUN_LABEL

logger = logging.getLogger(__name__)

COMPARE_SECONDS = 300.0


async def keep_comparing(controller: Controller, health: Health, every: float = COMPARE_SECONDS) -> None:
    """More often while a version is missing."""
    while True:
        await asyncio.sleep(BEHIND_SECONDS if health.behind else every)
        try:
            await compare_runs(controller, health, time.monotonic())
            await compare_children(controller)
        except ClusterError as error:
            logger.warning("the watches cannot be checked: %s", error)


async def compare_runs(controller: Controller, health: Health, now: float) -> None:
    """What the watch of PrismRuns is behind with goes to its health; a run whose end it missed is forgotten."""
    before = controller.inventory.runs()
    listed = _by_run(await controller.door.metadata(RUNS, PLURAL, controller.settings.watch_namespaces))
    health.compare(listed, controller.inventory.version, now)
    for key in [key for key in before if key not in listed]:
        await controller.look_for(key)


async def compare_children(controller: Controller) -> None:
    """A run of whose clusters or pods the watches told less, or more, than there is, is counted anew: also one that is only busy."""
    inventory = controller.inventory
    known = inventory.children_by_uid()
    clusters, pods = await _children(controller)
    there = {metadata["uid"] for metadata in (*clusters, *pods)}
    missed = {key for uid, key in known.items() if uid not in there}
    missed |= inventory.unknown_clusters(clusters) | inventory.unknown_pods(pods)
    for key in missed:
        controller.doubt(key)


async def _children(controller: Controller) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    namespaces = controller.settings.watch_namespaces
    clusters = await controller.door.metadata(CLUSTERS, "rayclusters", namespaces, RUN_LABEL)
    return clusters, await controller.door.metadata(CORE, "pods", namespaces, RUN_LABEL)


def _by_run(listed: Sequence[Mapping[str, Any]]) -> dict[RunKey, int]:
    return {RunKey(metadata["namespace"], metadata["name"]): int(metadata["resourceVersion"]) for metadata in listed}
