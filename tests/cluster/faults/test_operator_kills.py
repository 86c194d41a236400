"""The operator is killed at its writes, started again, and doubled. Whatever happens to it, a run's story is the undisturbed one."""

import asyncio

import pytest

from cluster.faults.lives import a_crash_and_a_pause, two_stages, undisturbed
from cluster.faults.proxy import Dropped
from cluster.faults.runs import outcomes
from cluster.faults.scene import scene
from cluster.faults.stage_player import runs

pytestmark = pytest.mark.cluster

LANES = 3
NUM_WRITES = 10
"""At least, of a run of two stages: two creations, two deletions, four transitions, and the finalizer comes and goes."""


class Crash:
    """SIGKILL at write number `at`, or at every one: before it reaches the API server, or after it is done and before the answer."""

    def __init__(self, here, when, at=None):
        self.here, self.at, self.times, self.restart = here, at, 0, None
        setattr(here.proxy, when, self.kill)

    async def kill(self, passing):
        if passing.write and self.at in (None, passing.write):
            self.times += 1
            self.here.operator.kill_at_once()
            self.restart = asyncio.create_task(self.here.operator.restart())
            raise Dropped

    async def has_happened(self):
        """And the operator is there again. The last write may come after the run's end."""
        for _ in range(50):
            if self.times:
                await self.restart
                return True
            await asyncio.sleep(0.01)
        return False


@pytest.mark.parametrize("lane", range(LANES))
@pytest.mark.parametrize("life", [two_stages, a_crash_and_a_pause], ids=lambda life: life.__name__)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_operator_killed_at_any_write_loses_and_doubles_nothing(plane, when, life, lane):
    """The lanes share the writes: each takes every third."""
    reference, at = await undisturbed(plane, life), 1 + lane
    async with scene(plane) as here:
        while True:
            crash = Crash(here, when, at)
            assert await life(here) == reference, f"killed {when} write {at}"
            if not await crash.has_happened():
                break
            here.begin_anew()
            at += LANES
    assert at > NUM_WRITES


async def test_an_operator_killed_after_each_of_its_writes_comes_to_the_same_end(plane):
    async with scene(plane) as here:
        crash = Crash(here, "after")
        assert await two_stages(here) == await undisturbed(plane)
        assert crash.times >= 6  # fewer than in one life: what happens between two lives is told at once
        await crash.restart


async def test_two_operators_at_once_carry_a_run_out_once(plane):
    for life in (two_stages, a_crash_and_a_pause):
        async with scene(plane, num_operators=2) as here:
            assert await life(here) == await undisturbed(plane, life)


async def test_two_operators_at_once_carry_twenty_runs_out_once_each(plane):
    names = [f"run{i}" for i in range(20)]
    async with scene(plane, num_operators=2) as here:
        await asyncio.gather(*(here.apply(name=name) for name in names))
        for name in names:
            run = await here.until_finished(name)
            assert outcomes(run, "sft") == outcomes(run, "rlvr") == ["Succeeded"]
        here.assert_created(*(f"{name}-{stage}-a1" for name in names for stage in ("sft", "rlvr")))
        writers = [{passing.name for passing in proxy.writes("rayclusters", "POST") if passing.answer == 201} for proxy in here.proxies]
        assert len(writers[0]) + len(writers[1]) == 2 * len(names)
        assert not writers[0] & writers[1]


async def test_an_operator_that_is_told_to_stop_ends_in_peace_and_its_successor_goes_on(plane):
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = runs
        await here.apply()
        await here.until_runs("sft")
        assert await here.operator.stop() == 0
        await here.stage("demo-sft-a1").succeed()
        await here.operator.start()
        assert outcomes(await here.until_finished(), "sft") == ["Succeeded"]
        here.assert_created("demo-sft-a1", "demo-rlvr-a1")


async def test_an_operator_whose_watch_fails_for_good_ends_and_is_not_deaf(plane):
    """The kubelet starts it again."""
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = runs
        await here.apply()
        await here.until_runs("sft")
        here.proxy.break_watches(500, "InternalError")
        assert await asyncio.wait_for(here.operator.ended(), 60) == 1
        await here.stage("demo-sft-a1").succeed()
        await here.operator.start()
        assert outcomes(await here.until_finished(), "sft") == ["Succeeded"]
