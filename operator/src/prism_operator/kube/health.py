"""`/livez` and `/readyz`. Alive means: the event loop turns, and the watch of PrismRuns is not behind the API server."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from aiohttp import web

from prism_operator.errors import ClusterError
from prism_operator.kube import metrics
from prism_operator.kube.controller import Controller
from prism_operator.kube.inventory import RunKey
from prism_operator.names import PLURAL

logger = logging.getLogger(__name__)

COMPARE_SECONDS = 300.0
BEHIND_SECONDS = 60.0
"""How long a version the API server has may be missing here before the watch counts as dead."""
LAG_SECONDS = 1.0


@dataclass
class Health:
    """Read by the probes."""

    ready: asyncio.Event
    behind_since: float | None = None
    stopped: str = ""
    """Name of a part of the operator that ended."""

    def complaint(self) -> str:
        """Empty while all is well."""
        if self.stopped:
            return f"{self.stopped} has stopped"
        if self.behind_since is not None and time.monotonic() - self.behind_since > BEHIND_SECONDS:
            return f"the watch of {PLURAL} does not tell what the API server has"
        return ""


async def serve(health: Health, port: int) -> web.AppRunner:
    """On the event loop itself, so that a loop that is stuck answers no probe."""

    async def live(_: web.Request) -> web.Response:
        complaint = health.complaint()
        return web.Response(status=500 if complaint else 200, text=complaint or "ok")

    async def ready(_: web.Request) -> web.Response:
        told = health.ready.is_set() and not health.complaint()
        return web.Response(status=200 if told else 503, text="ok" if told else health.complaint() or "the first listing is not done")

    app = web.Application()
    app.add_routes([web.get("/livez", live), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


async def keep_comparing(controller: Controller, health: Health, every: float = COMPARE_SECONDS) -> None:
    """A silent watch looks like a quiet cluster, so now and then the versions are compared with a listing."""
    while True:
        await asyncio.sleep(BEHIND_SECONDS if health.behind_since else every)
        try:
            listed = await controller.door.versions(controller.settings.watch_namespaces)
        except ClusterError as error:
            logger.warning("the watch cannot be checked: %s", error)
            continue
        missing = [key for key, version in listed.items() if controller.inventory.version(RunKey(*key)) < version]
        if not missing:
            health.behind_since = None
        elif health.behind_since is None:
            health.behind_since = time.monotonic()


async def keep_measuring_lag() -> None:
    """How late the loop wakes a sleeper."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(LAG_SECONDS)
        metrics.LOOP_LAG.set(max(0.0, time.monotonic() - before - LAG_SECONDS))
