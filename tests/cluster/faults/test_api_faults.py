"""The way to the API server is bad, or it is away itself. The run's story is that of a run nothing disturbed."""

import asyncio
from collections import Counter

import pytest

from cluster.faults.lives import two_stages, undisturbed
from cluster.faults.proxy import Dropped, refusal
from cluster.faults.runs import is_finished, outcomes, story
from cluster.faults.scene import scene
from cluster.faults.side_by_side import alone
from cluster.faults.stage_player import runs

pytestmark = pytest.mark.cluster

CLUSTERS = ("demo-sft-a1", "demo-rlvr-a1")
IDLE_SECONDS = 20
INACTIVITY_SECONDS = 70
"""After which kopf takes a silent watch for dead."""


def spoils(what, times=1, resource=""):
    """A hook that does it to every write, so many times before it lets it pass."""
    tried = Counter()

    async def hook(passing):
        kind = passing.method, passing.resource, passing.name
        tried[kind] += 1
        is_meant = passing.write and resource in ("", passing.resource)
        return what() if is_meant and tried[kind] % (times + 1) else None

    return hook


def drop():
    raise Dropped


FAULTS = {
    "409 for every other status": ("before", lambda: spoils(lambda: refusal(409, "Conflict"), resource="prismruns/status")),
    "429 with Retry-After": ("before", lambda: spoils(lambda: refusal(429, "TooManyRequests", Retry_After="1"))),
    "503 twice": ("before", lambda: spoils(lambda: refusal(503, "ServiceUnavailable"), times=2)),
    "500 before it is done": ("before", lambda: spoils(lambda: refusal(500, "InternalError"))),
    "500 after it is done": ("after", lambda: spoils(lambda: refusal(500, "InternalError"))),
    "504 after it is done": ("after", lambda: spoils(lambda: refusal(504, "Timeout"))),
    "connection lost before it is done": ("before", lambda: spoils(drop)),
    "connection lost after it is done": ("after", lambda: spoils(drop)),
}
"""Where the proxy spoils a write, and how."""


async def test_a_silent_watch_is_opened_anew_after_the_time_of_inactivity(plane):
    async with scene(plane) as here:
        here.player.default = runs
        await here.apply()
        await here.until_runs("sft")
        here.proxy.stall_watches()
        await here.stage("demo-sft-a1").succeed()
        await here.stays(lambda: outcomes(here.sightings.run(), "sft") == ["Running"], "nobody has told the operator", 5)
        await here.until(
            lambda: outcomes(here.sightings.run(), "sft") == ["Succeeded"], "the operator has heard", seconds=2 * INACTIVITY_SECONDS
        )


@pytest.mark.parametrize("fault", list(FAULTS))
async def test_a_run_ends_the_same_through(plane, fault):
    where, make = FAULTS[fault]
    async with scene(plane) as here:
        setattr(here.proxy, where, make())
        assert await two_stages(here) == await undisturbed(plane)


async def test_retry_after_is_waited_for(plane):
    async with scene(plane) as here:
        here.proxy.before = spoils(lambda: refusal(429, "TooManyRequests", Retry_After="3"), resource="rayclusters")
        await here.apply()
        await here.until_finished()
        creations = [passing for passing in here.proxy.writes("rayclusters", "POST") if passing.name == "demo-sft-a1"]
        assert [passing.answer for passing in creations] == [429, 201]
        assert creations[1].at - creations[0].at >= 3


def refuse_every_third_watch():
    seen = Counter()

    async def hook(passing):
        seen[passing.path] += passing.is_watch
        return refusal(503, "ServiceUnavailable") if passing.is_watch and not seen[passing.path] % 3 else None

    return hook


async def test_watches_that_are_cut_every_second_and_sometimes_refused_lose_nothing(plane):
    reference = await undisturbed(plane)
    async with scene(plane) as here:
        here.proxy.watch_seconds, here.proxy.before = 1.0, refuse_every_third_watch()

        async def slow(pod):
            await pod.run()
            await asyncio.sleep(2.5)
            await pod.succeed()

        here.player.default = slow
        await here.apply()
        assert story(await here.until_finished()) == reference
        here.assert_created(*CLUSTERS)
        assert sum(passing.is_watch for passing in here.proxy.log) > 9


async def test_what_happened_while_the_watches_were_away_is_seen_after_410(plane):
    reference = await undisturbed(plane)
    async with scene(plane) as here:
        here.player.default = runs
        await here.apply()
        for stage in ("sft", "rlvr"):
            await here.until_runs(stage)
            here.proxy.stall_watches()
            await here.stage(f"demo-{stage}-a1").succeed()
            await asyncio.sleep(0.5)
            here.proxy.break_watches(410, "Expired")
        assert story(await here.until_finished()) == reference
        here.assert_created(*CLUSTERS)


async def test_children_that_went_while_the_watches_were_away_are_missed_after_410(plane):
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = runs
        await here.apply()
        await here.until_runs("sft")
        here.proxy.stall_watches()
        await here.delete("rayclusters", "demo-sft-a1", propagationPolicy="Foreground")
        await here.until_bare()
        here.proxy.break_watches(410, "Expired")
        run = await here.until_finished()
        assert outcomes(run, "sft")[1:] == ["Succeeded"]
        here.assert_created("demo-sft-a1", "demo-sft-a2", "demo-rlvr-a1")


async def test_an_idle_operator_asks_for_nothing_but_its_watches(plane):
    finished, running = [f"done{i}" for i in range(20)], [f"runs{i}" for i in range(5)]
    async with scene(plane) as here:
        for name in running:
            here.player.parts[f"{name}-sft-a1"] = runs
        await asyncio.gather(*(here.apply(name=name) for name in (*finished, *running)))
        for name in finished:
            await here.until_finished(name)
        for name in running:
            await here.until_runs("sft", name=name)
        await asyncio.sleep(2)
        here.proxy.heal()
        await asyncio.sleep(IDLE_SECONDS)
        assert [str(passing) for passing in here.proxy.log if not passing.is_watch] == []
        assert not any(is_finished(here.sightings.run(name)) for name in running)


@alone
async def test_a_restart_of_the_api_server_in_mid_stage_is_outlived(plane):
    reference = await undisturbed(plane)
    async with scene(plane) as here:
        here.player.default = runs
        await here.apply()
        for stage in ("sft", "rlvr"):
            await here.until_runs(stage)
            head = here.stage(f"demo-{stage}-a1")
            await asyncio.to_thread(plane.control.processes.stop, "kube-apiserver")
            await asyncio.sleep(1)
            await asyncio.to_thread(plane.control.processes.restart, "kube-apiserver")
            await asyncio.to_thread(plane.control.wait_for_api)
            await head.succeed()
        assert story(await here.until_finished()) == reference
        here.assert_created(*CLUSTERS)
