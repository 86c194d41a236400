"""The queue of keys, with a clock that is set by hand."""

import asyncio

import pytest

from prism_operator.kube.workqueue import FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, WorkQueue, work


class Clock:
    time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


def taken(queue, clock, seconds=0.0):
    """Every key that is ready after so long, with its waiting time; none is given back."""
    clock.time += seconds
    found = []
    queue._ring()
    while len(queue):
        found.append(asyncio.run(queue.get()))
        queue._ring()
    return found


def keys(queue, clock, seconds=0.0):
    return [key for key, _ in taken(queue, clock, seconds)]


def test_a_key_that_is_added_often_is_worked_on_once_and_in_order(queue, clock):
    for key in "abab":
        queue.add(key)
    assert len(queue) == 2 and keys(queue, clock) == ["a", "b"]


def test_the_waiting_time_counts_from_the_first_wish(queue, clock):
    queue.add("a")
    clock.time += 2
    queue.add("a")
    assert taken(queue, clock, 1) == [("a", 3.0)]


def test_a_key_that_is_worked_on_is_given_to_nobody_else_and_comes_again_once(queue, clock):
    queue.add("a")
    assert keys(queue, clock) == ["a"]
    queue.add("a")
    queue.add("a")
    assert keys(queue, clock) == []
    queue.done("a")
    assert keys(queue, clock) == ["a"]
    queue.done("a")
    assert keys(queue, clock, 1000) == []


def test_an_alarm_that_rings_while_the_key_is_worked_on_is_not_lost(queue, clock):
    queue.add("a")
    assert keys(queue, clock) == ["a"]
    queue.add_at("a", clock.time + 5)
    assert keys(queue, clock, 6) == []
    queue.done("a")
    assert keys(queue, clock) == ["a"]


def test_a_key_is_woken_at_its_time_and_once(queue, clock):
    queue.add_at("a", clock.time + 10)
    assert keys(queue, clock, 9) == []
    assert keys(queue, clock, 1) == ["a"]
    queue.done("a")
    assert keys(queue, clock, 1000) == []


@pytest.mark.parametrize(("first", "second"), [(10, 5), (5, 10)])
def test_of_two_alarms_the_earlier_rings_and_the_later_is_silent(queue, clock, first, second):
    queue.add_at("a", clock.time + first)
    queue.add_at("a", clock.time + second)
    assert keys(queue, clock, 5) == ["a"]
    queue.done("a")
    assert keys(queue, clock, 100) == []


def test_an_alarm_in_the_past_rings_at_once(queue, clock):
    queue.add_at("a", clock.time - 1)
    assert keys(queue, clock) == ["a"]


def test_a_failing_key_comes_again_later_and_later_for_days(queue, clock):
    delays = []
    for _ in range(3000):
        queue.add("a")
        assert keys(queue, clock) == ["a"]
        delays.append(queue.done("a", failed=True))
        clock.time += MAX_DELAY_SECONDS
        queue._ring()
    assert delays[:4] == [FIRST_DELAY_SECONDS * 2**n for n in range(4)] and set(delays[12:]) == {MAX_DELAY_SECONDS}


def test_a_failure_is_tried_again_without_being_asked_and_success_forgets_it(queue, clock):
    queue.add("a")
    keys(queue, clock)
    queue.done("a", failed=True)
    assert keys(queue, clock, FIRST_DELAY_SECONDS / 2) == []
    assert keys(queue, clock, FIRST_DELAY_SECONDS) == ["a"]
    queue.done("a")
    assert queue.failures("a") == 0


def test_news_about_a_failing_key_need_not_wait_for_its_delay(queue, clock):
    queue.add("a")
    keys(queue, clock)
    queue.add("a")
    queue.done("a", failed=True)
    assert keys(queue, clock) == ["a"]


def test_a_forgotten_key_wakes_nobody(queue, clock):
    queue.add_at("a", clock.time + 5)
    queue.forget("a")
    assert keys(queue, clock, 100) == []


def test_many_alarms_for_one_key_leave_nothing_behind(queue, clock):
    for _ in range(1000):
        queue.add_at("a", clock.time + 300)
        queue.add("a")
        keys(queue, clock)
        queue.done("a")
    assert len(queue._alarms) == 1


def test_workers_share_the_keys_and_never_one_key():
    async def run():
        queue, active, order = WorkQueue(asyncio.get_running_loop().time), set(), []

        async def do(key, waited):
            assert key not in active
            active.add(key)
            await asyncio.sleep(0)
            order.append(key)
            if order.count(key) < 3:
                queue.add(key)
            active.discard(key)
            return True

        workers = [asyncio.create_task(work(queue, do)) for _ in range(4)]
        for key in range(10):
            queue.add(key)
        queue.add_at("later", asyncio.get_running_loop().time() + 0.01)
        async with asyncio.timeout(5):
            while len(order) < 33:
                await asyncio.sleep(0)
                if order.count("later"):
                    await asyncio.sleep(0.001)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return order

    order = asyncio.run(run())
    assert all(order.count(key) == 3 for key in [*range(10), "later"])


def test_what_follows_a_pass_waits_for_each_other_and_the_first_after_a_while_does_not(clock):
    queue = WorkQueue(clock, apart=0.25)
    queue.add("a")
    assert keys(queue, clock) == ["a"]
    queue.done("a")
    clock.time += 0.1
    queue.add("a")
    queue.add("a")
    assert keys(queue, clock) == [] and keys(queue, clock, 0.15) == ["a"]
    queue.done("a")
    clock.time += 0.3
    queue.add("a")
    assert len(queue) == 1


def test_nothing_is_kept_of_keys_that_have_rested(clock):
    queue = WorkQueue(clock, apart=0.25)
    for number in range(100):
        queue.add(number)
        queue.done(number)
        clock.time += 0.1
    assert len(queue._done_at) < 5


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
