"""`/livez` and `/readyz`. Alive means: the event loop turns, and the watch of PrismRuns is not behind the API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from prism_operator.kube import metrics
from prism_operator.kube.inventory import RunKey
from prism_operator.names import PLURAL

BEHIND_SECONDS = 60.0
"""How long a version the API server has may be missing here before the watch counts as dead."""
LAG_SECONDS = 1.0


@dataclass
class Health:
    """Read by the probes."""

    ready: asyncio.Event
    behind: dict[RunKey, tuple[int, float]] = field(default_factory=dict)
    """By run: the version that is missing here, and since when."""
    deaf: bool = False
    """A version was missing in one comparison and still is in a later one."""
    stopped: str = ""
    """Name of a part of the operator that ended."""

    def complaint(self) -> str:
        """Empty while all is well."""
        if self.stopped:
            return f"{self.stopped} has stopped"
        if self.deaf:
            return f"the watch of {PLURAL} does not tell what the API server has"
        return ""

    def compare(self, listed: Mapping[RunKey, int], known: Callable[[RunKey], int], now: float) -> None:
        """A busy watch is always a little behind; a dead one never tells of the same version."""
        late = {key: version for key, version in listed.items() if known(key) < version}
        before = {key: missing for key, missing in self.behind.items() if key in late and known(key) < missing[0]}
        self.behind = {key: before.get(key, (version, now)) for key, version in late.items()}
        self.deaf = any(now - since >= BEHIND_SECONDS for _, since in self.behind.values())


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


async def keep_measuring_lag() -> None:
    """How late the loop wakes a sleeper."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(LAG_SECONDS)
        metrics.LOOP_LAG.set(max(0.0, time.monotonic() - before - LAG_SECONDS))
