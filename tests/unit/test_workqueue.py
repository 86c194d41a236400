"""The queue of runs, with a clock that stands still until it is set."""

import asyncio

import pytest

from prism_operator.kube.workqueue import MAX_DELAY_SECONDS, WorkQueue, work


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


async def next_of(queue):
    return (await asyncio.wait_for(queue.get(), 1))[0]


async def is_quiet(queue):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.02)
    return True


def test_a_key_that_waits_waits_no_second_time(clock):
    async def scene():
        queue = WorkQueue(clock)
        queue.add("a")
        queue.add("a")
        assert await next_of(queue) == "a"
        assert await is_quiet(queue)

    asyncio.run(scene())


def test_a_key_that_is_worked_on_comes_again_only_afterwards(clock):
    async def scene():
        queue = WorkQueue(clock)
        queue.add("a")
        await next_of(queue)
        queue.add("a")
        assert await is_quiet(queue)
        queue.done("a")
        assert await next_of(queue) == "a"

    asyncio.run(scene())


def test_events_that_follow_a_pass_wait_for_each_other_and_the_first_after_a_while_does_not(clock):
    async def scene():
        queue = WorkQueue(clock, apart=0.25)
        queue.add("a")
        await next_of(queue)
        queue.done("a")
        clock.now += 0.1
        queue.add("a")
        queue.add("a")
        assert await is_quiet(queue)
        clock.now += 0.15
        assert await next_of(queue) == "a"
        queue.done("a")
        clock.now += 0.3
        queue.add("a")
        assert len(queue) == 1

    asyncio.run(scene())


def test_nothing_is_kept_of_keys_that_have_rested(clock):
    queue = WorkQueue(clock, apart=0.25)
    for number in range(100):
        queue.add(number)
        queue.done(number)
        clock.now += 0.1
    assert len(queue._done_at) < 5


def test_a_failed_key_comes_again_later_and_later_but_not_too_late(clock):
    async def scene():
        queue, delays = WorkQueue(clock), []
        queue.add("a")
        for _ in range(40):
            await next_of(queue)
            delays.append(queue.done("a", failed=True))
            clock.now += delays[-1]
        assert delays[:3] == [0.2, 0.4, 0.8]
        assert delays == sorted(delays)
        assert delays[-1] == MAX_DELAY_SECONDS

    asyncio.run(scene())


def test_an_alarm_rings_although_the_worker_that_watched_the_clock_has_work_of_its_own():
    async def scene():
        loop = asyncio.get_running_loop()
        queue, seen, free = WorkQueue(loop.time), [], asyncio.Event()

        async def do(key, waited):
            seen.append(key)
            if key == "long":
                await free.wait()
            return True

        workers = [asyncio.create_task(work(queue, do)) for _ in range(4)]
        await asyncio.sleep(0.01)
        queue.add_at("alarm", loop.time() + 0.1)
        await asyncio.sleep(0.01)
        queue.add("long")
        await asyncio.sleep(0.3)
        assert seen == ["long", "alarm"]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    asyncio.run(scene())


def test_every_key_is_worked_on_once_by_many_workers():
    async def scene():
        queue, seen = WorkQueue(asyncio.get_running_loop().time), []

        async def do(key, waited):
            seen.append(key)
            await asyncio.sleep(0)
            return True

        workers = [asyncio.create_task(work(queue, do)) for _ in range(16)]
        for number in range(200):
            queue.add(number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert sorted(seen) == list(range(200))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    asyncio.run(scene())
