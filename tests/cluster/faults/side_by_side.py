"""Runs a folder's coroutine tests on one event loop, several at once: they mostly wait, for controllers, back-offs and deadlines."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


@dataclass
class SideBySide:
    """An event loop in a thread of its own. The tests are started together, in their order; each turn of pytest's waits for its own."""

    at_once: int
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread = field(init=False)
    _started: dict[str, Future[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self.loop.run_forever, name="side by side", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait_for(self, item: pytest.Function, items: Sequence[pytest.Item], given: Mapping[str, Any]) -> None:
        """Raises what the test raises. `given` are the fixtures, which must be of the session, because all tests share them."""
        if item.nodeid not in self._started:
            slots = asyncio.Semaphore(self.at_once)
            ours = [each for each in items if isinstance(each, pytest.Function) and is_ours(each) and each.path.parent == item.path.parent]
            for each in sorted(ours, key=_is_alone):  # at the end, so that the others need not wait for it
                needed = self.at_once if _is_alone(each) else 1
                self._started[each.nodeid] = self.start(_in_turn(slots, needed, each, given))
        self._started[item.nodeid].result()

    def close(self) -> None:
        """Tests that nobody waits for any more are cancelled, and clean up."""
        self.start(_cancel_all()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def alone(test: T) -> T:
    """Nothing else runs beside this test."""
    test.alone = True  # type: ignore[attr-defined]
    return test


def is_ours(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function)


def _is_alone(item: pytest.Function) -> bool:
    return getattr(item.function, "alone", False)


async def _in_turn(slots: asyncio.Semaphore, needed: int, item: Any, given: Mapping[str, Any]) -> None:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    arguments = {name: params[name] if name in params else given[name] for name in inspect.signature(item.function).parameters}
    for _ in range(needed):
        await slots.acquire()
    began = time.monotonic()
    try:
        await item.function(**arguments)
    finally:
        item.user_properties.append(("seconds", round(time.monotonic() - began, 1)))  # pytest's own figure is of the waiting
        for _ in range(needed):
            slots.release()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
