"""`prism operator`: kopf and the watches, the workers, the poller and the probes, in one event loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import kopf
import prometheus_client
from kopf._core.engines.peering import Identity  # not public, but a parameter of kopf.operator

from prism_operator.kube import comparison, health, progress
from prism_operator.kube.controller import Controller
from prism_operator.kube.door import Door
from prism_operator.kube.handlers import make_kopf_settings, make_registry
from prism_operator.kube.watch import Watch, child_watches
from prism_operator.kube.workqueue import work
from prism_operator.settings import Settings, read_settings

logger = logging.getLogger(__name__)

APART_SECONDS = 0.25
"""Between two passes over one run: a new pod is created, placed and started within this time, and told of once."""


def run_operator() -> int:
    """The exit code. Killing it at any moment loses and doubles nothing."""
    settings = read_settings(os.environ)
    log_format = kopf.LogFormat.JSON if settings.log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(log_format=log_format)
    logging.getLogger().setLevel(settings.log_level)
    logging.getLogger("kopf.objects").setLevel("WARNING")
    with suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return asyncio.run(_operate(settings))


async def _operate(settings: Settings) -> int:
    door = await Door.open(settings.max_writes)
    controller = Controller(door, settings, apart_seconds=APART_SECONDS)
    state = health.Health(ready=asyncio.Event())
    metrics_server, _ = prometheus_client.start_http_server(settings.metrics_port)
    probes = await health.serve(state, settings.health_port)
    watches = child_watches(controller)
    parts: dict[str, Coroutine[Any, Any, Any]] = {
        "the watch of PrismRuns": _watch_runs(controller),
        **{f"the watch of {each.place}": each.keep_watching() for each in watches},
        "the poller": progress.keep_asking(controller),
        "the comparison": comparison.keep_comparing(controller, state),
        "the lag meter": health.keep_measuring_lag(),
        **{f"worker {i}": _work(controller, watches, state) for i in range(settings.workers)},
    }
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    logger.info("looking after %s", ", ".join(settings.watch_namespaces) or "all namespaces")
    try:
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return _how_it_ended(done, state)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await probes.cleanup()
        metrics_server.shutdown()
        await door.close()


async def _watch_runs(controller: Controller) -> None:
    """kopf takes SIGTERM and SIGINT and ends then."""
    namespaces = controller.settings.watch_namespaces
    await kopf.operator(
        registry=make_registry(controller),
        settings=make_kopf_settings(controller.settings),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
        identity=Identity("prism-operator"),  # else kopf asks for the name of a user that a container may not have
    )


async def _work(controller: Controller, watches: Sequence[Watch], state: health.Health) -> None:
    """One worker. A run that was looked at before its clusters and pods were listed would seem to have lost them.

    It has no tasks of its own: kopf, where it ends, cancels whatever task was made after its start.
    """
    for each in watches:
        await each.listed.wait()
    state.ready.set()
    await work(controller.queue, controller.handle)


def _how_it_ended(done: set[asyncio.Task[Any]], state: health.Health) -> int:
    """0 only where kopf ended in peace: it does when the operator is told to stop."""
    for task in done:
        if task.cancelled():
            continue
        if task.exception() is not None or task.get_name() != "the watch of PrismRuns":
            state.stopped = task.get_name()
            logger.error("%s ended: %r", task.get_name(), task.exception())
            return 1
    return 0
