"""Whole lives of a run, from its creation to its deletion, and the stories they have when nothing disturbs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cluster.faults.api import Object
from cluster.faults.runs import FIRST, stage, story
from cluster.faults.scene import Plane, Scene, scene
from cluster.faults.stage_player import Pod, runs

Life = Callable[[Scene], Awaitable[Object]]
"""Returns the story; asserts what was created on the way."""


async def two_stages(here: Scene) -> Object:
    """Each succeeds."""
    await here.apply()
    told = story(await here.until_finished())
    await here.until_deleted()
    here.assert_created("demo-sft-a1", "demo-rlvr-a1")
    return told


async def a_crash_and_a_pause(here: Scene) -> Object:
    """The first attempt crashes, the second is suspended, the third succeeds."""

    async def crashes(pod: Pod) -> None:
        await pod.run()
        await pod.end(FIRST, 139)

    here.player.parts = {"demo-sft-a1": crashes, "demo-sft-a2": runs}
    await here.apply(stage(FIRST))
    await here.until_runs("sft", attempt=2)
    await here.edit(suspend=True)
    await here.until_told("Suspended", status="True")
    await here.edit(suspend=False)
    told = story(await here.until_finished())
    await here.until_deleted()
    here.assert_created("demo-sft-a1", "demo-sft-a2", "demo-sft-a3")
    return told


async def undisturbed(plane: Plane, life: Life = two_stages) -> Object:
    """Its story. It is lived once."""

    async def live() -> Object:
        async with scene(plane) as here:
            return await life(here)

    if life.__name__ not in plane.stories:
        plane.stories[life.__name__] = asyncio.create_task(live())
    return await asyncio.shield(plane.stories[life.__name__])
