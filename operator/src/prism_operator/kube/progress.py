"""Asking running stages how far they are: best effort, off the path of every pass. Without a way to the pods a run works the same."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

import aiohttp
from pydantic import ValidationError

from prism_operator.kube import metrics
from prism_operator.kube.controller import Controller
from prism_operator.kube.inventory import RunKey
from prism_operator.timestamps import format_exact
from prism_trainer.contract.pod import PROGRESS_PORT
from prism_trainer.contract.report import Progress

logger = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=2.0)
MAX_AT_ONCE = 32
MAX_BODY = 64 * 1024
STEP_SHARE = 0.01
REFRESH_SECONDS = 300.0
"""After which a heartbeat is news even where nothing moved, so that ETA and GPU-seconds do not stand still."""


async def keep_asking(controller: Controller) -> None:
    """For ever. All stages are asked in one round, and a round begins at most every `progress_seconds`."""
    slots = asyncio.Semaphore(MAX_AT_ONCE)
    shown: dict[str, tuple[Progress, float]] = {}
    """What was worth a pass, and when."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        while True:
            await asyncio.sleep(controller.settings.progress_seconds)
            running = list(controller.inventory.running())
            names = {f"{key.namespace}/{cluster.name}" for key, cluster, _ in running}
            shown = {name: last for name, last in shown.items() if name in names}
            async with asyncio.TaskGroup() as round_:
                for key, cluster, head in running:
                    round_.create_task(_ask(controller, session, slots, key, cluster.name, head.address, shown))


async def _ask(
    controller: Controller,
    session: aiohttp.ClientSession,
    slots: asyncio.Semaphore,
    key: RunKey,
    cluster: str,
    address: str,
    shown: dict[str, tuple[Progress, float]],
) -> None:
    name = f"{key.namespace}/{cluster}"
    async with slots:
        told = await _fetch(session, address)
    metrics.PROGRESS_REQUESTS.labels("answered" if told else "silent").inc()
    if told is None:
        return
    before = shown.get(name)
    controller.inventory.progress[name] = told  # always: a sign of work that is kept back looks like a hang
    if before is None or is_news(before[0], told) or time.monotonic() - before[1] > REFRESH_SECONDS:
        shown[name] = told, time.monotonic()
        controller.queue.add(key)


async def _fetch(session: aiohttp.ClientSession, address: str) -> Progress | None:
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{PROGRESS_PORT}/progress", allow_redirects=False) as response:
            if response.status != 200:
                return None
            told = Progress.model_validate_json(await _body(response))
            return told.model_copy(update={"updated_at": format_exact(datetime.now(UTC))})  # when it was heard
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, ValueError) as error:
        logger.debug("%s: no progress: %r", address, error)
        return None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            raise ValueError(f"more than {MAX_BODY} bytes")
    return body


def is_news(before: Progress, told: Progress) -> bool:
    """A write to the API server is worth one percent, another phase, or another number of steps."""
    if (before.attempt, before.phase, before.total_steps, before.resume_from) != (
        told.attempt,
        told.phase,
        told.total_steps,
        told.resume_from,
    ):
        return True
    return told.step != before.step and abs(told.step - before.step) >= STEP_SHARE * max(told.total_steps, 1)
