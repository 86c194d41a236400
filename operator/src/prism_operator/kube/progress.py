"""Asking running stages how far they are: best effort, off the path of every pass. Without a way to the pods a run works the same."""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp
from pydantic import ValidationError

from prism_operator.kube import metrics
from prism_operator.kube.controller import Controller
from prism_operator.kube.inventory import RunKey
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
    shown_at: dict[str, float] = {}
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        while True:
            await asyncio.sleep(controller.settings.progress_seconds)
            running = list(controller.inventory.running())
            shown_at = {name: at for name, at in shown_at.items() if name in {f"{key.namespace}/{c.name}" for key, c, _ in running}}
            async with asyncio.TaskGroup() as round_:
                for key, cluster, head in running:
                    round_.create_task(_ask(controller, session, slots, key, cluster.name, head.address, shown_at))


async def _ask(
    controller: Controller,
    session: aiohttp.ClientSession,
    slots: asyncio.Semaphore,
    key: RunKey,
    cluster: str,
    address: str,
    shown_at: dict[str, float],
) -> None:
    name = f"{key.namespace}/{cluster}"
    async with slots:
        told = await _fetch(session, address)
    metrics.PROGRESS_REQUESTS.labels("answered" if told else "silent").inc()
    if told is None:
        return
    before = controller.inventory.progress.get(name)
    if before is None or is_news(before, told) or time.monotonic() - shown_at.get(name, 0.0) > REFRESH_SECONDS:
        controller.inventory.progress[name] = told
        shown_at[name] = time.monotonic()
        controller.queue.add(key)


async def _fetch(session: aiohttp.ClientSession, address: str) -> Progress | None:
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{PROGRESS_PORT}/progress") as response:
            return Progress.model_validate_json(await response.content.read(MAX_BODY)) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, ValueError) as error:
        logger.debug("%s: no progress: %r", address, error)
        return None


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
