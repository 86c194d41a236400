"""A queue of keys: each is in it once, is worked on by one worker at a time, is tried again later and later, and can be woken at a time."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 60.0
MAX_DOUBLINGS = 16
"""A key may fail for days."""


class WorkQueue(Generic[Key]):
    """`clock` is monotonic seconds. All methods are called on the event loop.

    A key that was worked on less than `apart` seconds ago waits for the rest of them: what follows a change comes in a row of events,
    and one look at all of them costs as much as one look at each. The first event after a while is never held up.
    """

    def __init__(self, clock: Callable[[], float], apart: float = 0.0) -> None:
        self._clock = clock
        self._apart = apart
        self._done_at: dict[Key, float] = {}
        """Of the keys that must rest still, in the order of time."""
        self._ready: deque[Key] = deque()
        self._since: dict[Key, float] = {}
        """Of every key that waits for a worker."""
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        """Touched while a worker was on them."""
        self._failures: dict[Key, int] = {}
        self._wake_at: dict[Key, float] = {}
        self._alarms: list[tuple[float, int, Key]] = []
        self._num_alarms = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        """Workers that wait for a key."""

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Soon; a key that is waiting already waits no second time, one that is worked on comes again afterwards."""
        now = self._clock()
        if key in self._active:
            self._again.add(key)
        elif key not in self._since and now < (rested := self._done_at.get(key, now - self._apart) + self._apart):
            self.add_at(key, rested)
        elif key not in self._since:
            self._since[key] = now
            self._ready.append(key)
            self._wake_one()

    def add_at(self, key: Key, time: float) -> None:
        """At that time at the latest. An earlier alarm stays, a later one is replaced."""
        if self._wake_at.get(key, float("inf")) <= time:
            return
        self._wake_at[key] = time
        self._num_alarms += 1
        heapq.heappush(self._alarms, (time, self._num_alarms, key))
        self._wake_one()

    def forget(self, key: Key) -> None:
        """The object is gone: no alarm wakes it, no failure is remembered."""
        self._wake_at.pop(key, None)
        self._failures.pop(key, None)

    async def get(self) -> tuple[Key, float]:
        """The next key, and how many seconds it has waited."""
        while True:
            self._ring()
            if self._ready:
                key = self._ready.popleft()
                self._active.add(key)
                if self._ready or self._alarms:  # it may have been this worker that watched the clock
                    self._wake_one()
                return key, self._clock() - self._since.pop(key)
            next_alarm = self._alarms[0][0] - self._clock() if self._alarms else None
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter, next_alarm)

    def done(self, key: Key, failed: bool = False) -> float | None:
        """After the work. A failed key comes again after a delay, which is returned."""
        self._active.discard(key)
        self._rest(key)
        delay = None
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(FIRST_DELAY_SECONDS * 2 ** min(self._failures[key] - 1, MAX_DOUBLINGS), MAX_DELAY_SECONDS)
            self.add_at(key, self._clock() + delay)
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        return delay

    def failures(self, key: Key) -> int:
        """In a row."""
        return self._failures.get(key, 0)

    def _rest(self, key: Key) -> None:
        now = self._clock()
        self._done_at.pop(key, None)
        self._done_at[key] = now
        while self._done_at and self._done_at[oldest := next(iter(self._done_at))] + self._apart <= now:
            del self._done_at[oldest]

    def _wake_one(self) -> None:
        """One key needs one worker; those that have waited in vain until an alarm are passed over."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _ring(self) -> None:
        """Alarms that are due; one that was replaced or forgotten is silent."""
        while self._alarms and self._alarms[0][0] <= self._clock():
            time, _, key = heapq.heappop(self._alarms)
            if self._wake_at.get(key) == time:
                del self._wake_at[key]
                self.add(key)


async def work(queue: WorkQueue[Key], do: Callable[[Key, float], Awaitable[bool]]) -> None:
    """One worker, for ever. `do` gets the key and its waiting time, and says whether it succeeded; it does not raise."""
    while True:
        key, waited = await queue.get()
        succeeded = False
        try:
            succeeded = await do(key, waited)
        finally:
            queue.done(key, failed=not succeeded)
