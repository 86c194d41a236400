"""One pass over one run, whatever woke it; what it comes to is written, told, measured, and the next look is arranged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prism_operator import reasons
from prism_operator.errors import PrismError
from prism_operator.kube import metrics, telling
from prism_operator.kube.door import RUNS, Door
from prism_operator.kube.inventory import Inventory, RunKey
from prism_operator.kube.workqueue import WorkQueue
from prism_operator.kube.world import KubeWorld, StaleError
from prism_operator.names import PLURAL
from prism_operator.parse import read_status
from prism_operator.reconcile import Pass, reconcile
from prism_operator.settings import Settings

logger = logging.getLogger(__name__)

OVERDUE_SECONDS = 5.0
"""Before something that is due, and was done, and has not shown an effect yet, is done again."""


@dataclass
class Controller:
    """Everything a pass needs. Nothing a decision depends on is kept here."""

    door: Door
    settings: Settings
    inventory: Inventory = field(default_factory=Inventory)
    clock: Callable[[], float] = time.monotonic
    time_of_day: Callable[[], datetime] = lambda: datetime.now(UTC)
    apart_seconds: float = 0.0
    """Between two passes over one run."""
    queue: WorkQueue[RunKey] = field(init=False)
    _doubted: set[RunKey] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.queue = WorkQueue(self.clock, self.apart_seconds)

    async def handle(self, key: RunKey, waited: float) -> bool:
        """Whether the pass succeeded; a failed one is tried again later and later."""
        metrics.QUEUE_LATENCY.observe(waited)
        metrics.QUEUE_DEPTH.set(len(self.queue))
        try:
            with metrics.RECONCILE_DURATION.time():
                await self._pass(key)
        except StaleError as error:
            logger.debug("%s/%s: %s", *key, error)
            metrics.RECONCILE_ERRORS.labels("Stale").inc()
            return False
        except PrismError as error:
            logger.warning("%s/%s: %s", *key, error)
            metrics.RECONCILE_ERRORS.labels(type(error).__name__).inc()
            return False
        except Exception:
            logger.exception("%s/%s: a bug of the operator; it is tried again", *key)
            metrics.RECONCILE_ERRORS.labels("Bug").inc()
            return False
        return True

    async def _pass(self, key: RunKey) -> None:
        raw = self.inventory.run(key)
        if raw is None:
            self._forget(key)
            return
        world = KubeWorld(self.door, self.inventory, self.settings, raw, self.time_of_day())
        await self._recount(world)
        before, unheard = read_status(raw), self.inventory.unheard(key)
        try:
            done = await reconcile(raw, world, world.now)
        except StaleError:
            if not await world.refresh():
                self.inventory.drop_run(key)
            raise
        if done.decision is not None:
            self.inventory.hear(key, unheard)
        if self.inventory.children(key)[0]:
            await world.hold()
        telling.measure(key, before, done.status, world.now)
        await telling.tell(self.door, world.raw, before, done.status, world.now)
        self._arrange(key, world, done)

    async def _recount(self, world: KubeWorld) -> None:
        if world.key in self._doubted:
            await world.recount()
            self._doubted.discard(world.key)

    def doubt(self, key: RunKey) -> None:
        """A watch was away, or is: what went meanwhile none of them tells, so its clusters and pods are listed before the next decision."""
        self._doubted.add(key)
        self.queue.add(key)

    def _arrange(self, key: RunKey, world: KubeWorld, done: Pass) -> None:
        """When to look again, if nothing happens before."""
        wake_at = done.decision.wake_at if done.decision else None
        if wake_at is not None:
            delay = (wake_at - world.now).total_seconds()
            self.queue.add_at(key, self.clock() + (delay if delay > 0 else OVERDUE_SECONDS))
        elif (
            done.status.is_true(reasons.FINISHED)
            and not any(self.inventory.children(key))
            and "deletionTimestamp" not in world.raw["metadata"]
        ):
            self.inventory.settle_run(key)

    async def look_for(self, key: RunKey) -> None:
        """Ask whether a run is still there, and forget it where it is not."""
        try:
            there = await self.door.get(RUNS, key.namespace, PLURAL, key.name)
        except PrismError as error:
            logger.warning("%s/%s: %s", *key, error)
            return
        if there is None:
            self.inventory.drop_run(key)
            self.queue.add(key)

    def _forget(self, key: RunKey) -> None:
        if not self.inventory.knows(key):  # else it is settled, and still there
            metrics.RUNS.drop(key)
        self._doubted.discard(key)
        self.queue.forget(key)
