"""What users do to a run in mid-stage and after its end: suspend, resume, edit, delete."""

import asyncio
from datetime import UTC, datetime

import pytest

from cluster.faults.api import Refused, place
from cluster.faults.runs import FIRST, SECOND, condition, is_finished, outcomes, sentence, stage, story
from cluster.faults.scene import scene
from cluster.faults.stage_player import fails, runs, succeeds
from prism_operator.timestamps import parse_time
from prism_trainer.contract.report import FailureClass

pytestmark = pytest.mark.cluster

ONE = stage(FIRST)


async def test_a_suspended_run_saves_gives_its_pods_back_and_goes_on_when_it_is_resumed(plane):
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = runs
        await here.apply()
        await here.until_runs("sft")
        await here.edit(suspend=True)
        await here.until_told("Suspended", status="True", reason="UserRequested")
        assert not here.sightings.clusters() and not here.sightings.pods()
        await here.stays(lambda: not here.sightings.clusters(), "nothing is started", 2)
        await here.edit(suspend=False)
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Stopped", "Succeeded"], sentence(run)
        assert condition(run, "Suspended")["status"] == "False"
        here.assert_created("demo-sft-a1", "demo-sft-a2", "demo-rlvr-a1")


async def test_a_run_that_is_suspended_from_its_creation_starts_nothing(plane):
    async with scene(plane) as here:
        await here.apply(suspend=True)
        await here.until_told("Suspended", status="True")
        await here.stays(lambda: not here.sightings.clusters(), "nothing is started", 2)
        await here.edit(suspend=False)
        assert outcomes(await here.until_finished(), "sft") == ["Succeeded"]


async def test_a_run_that_is_deleted_in_mid_stage_saves_and_leaves_nothing(plane):
    async with scene(plane) as here:
        here.player.default = runs
        saved = []

        async def last_act(pod):
            there = here.sightings.run() is not None
            await pod.save_and_end()
            saved.append(there)
            await pod.remove()

        here.player.last_act = last_act
        await here.apply()
        await here.until_runs("sft")
        await here.delete("prismruns", "demo")
        await here.until_gone()
        assert saved == [True]  # the object waited for its pods
        assert not here.sightings.clusters() and not here.sightings.pods()
        here.assert_created("demo-sft-a1")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_a_run_that_is_deleted_while_no_operator_lives_goes_when_one_starts(plane, policy):
    async with scene(plane) as here:
        here.player.default = runs
        await here.apply()
        await here.until_runs("sft")
        await here.operator.kill()
        await here.delete("prismruns", "demo", propagationPolicy=policy)
        await here.stays(lambda: here.sightings.run(), "its finalizer holds it", 2)
        await here.operator.start()
        await here.until_gone()
        await here.until_bare()
        here.assert_created("demo-sft-a1")


async def test_a_run_of_the_same_name_right_after_has_its_own_story(plane):
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = runs
        await here.apply(ONE)
        await here.until_runs("sft")
        await here.delete("prismruns", "demo")
        here.player.parts["demo-sft-a1"] = succeeds
        while True:
            try:
                await here.apply(ONE)
                break
            except Refused as refused:
                assert refused.status == 409
                await asyncio.sleep(0.01)
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Succeeded"]
        assert here.sightings.times_created() == {"demo-sft-a1": 2}  # one of each


async def test_budgets_and_deadlines_edited_in_mid_stage_hold_from_then_on(plane):
    async with scene(plane) as here:
        here.player.parts = {"demo-sft-a1": runs, "late-sft-a1": runs}
        await here.apply(ONE)
        await here.apply(ONE, name="late")
        await here.until_runs("sft")
        await here.until_runs("sft", name="late")
        await here.edit(retries={"userError": 1})
        await here.edit("late", deadlines={"stageSeconds": 1})
        await here.stage("demo-sft-a1").fail(FailureClass.USER_ERROR, "no such column")
        assert outcomes(await here.until_finished(), "sft") == ["Failed UserError", "Succeeded"]
        late = await here.until_finished("late")
        assert outcomes(late, "sft") == ["Failed DeadlineExceeded"]
        assert late["status"]["observedGeneration"] == 2


async def test_what_may_not_change_in_mid_stage_is_refused_at_admission(plane):
    async with scene(plane) as here:
        here.player.default = runs
        await here.apply()
        await here.until_runs("sft")
        for edit, words in (
            ({"stages": [stage(FIRST, config={"maxSteps": 7}), stage(SECOND)]}, "has started, so it stays where and as it is"),
            ({"stages": [stage(SECOND)]}, "has started, so it stays where and as it is"),
            ({"model": {"uri": "org/another"}}, "the model of a run stays as it is"),
            ({"seed": 7}, "the seed of a run stays as it is"),
            ({"storage": {"objectStore": {"uri": "s3://elsewhere"}}}, "the storage of a run stays as it is"),
        ):
            with pytest.raises(Refused, match=words):
                await here.edit(**edit)
        assert outcomes(here.sightings.run(), "sft") == ["Running"]


@pytest.mark.parametrize("field, reason", [("runSeconds", "DeadlineExceeded"), ("stageSeconds", "Failed")])
async def test_a_deadline_stops_the_stage_and_ends_the_run(plane, field, reason):
    async with scene(plane) as here:
        here.player.default = runs
        created = parse_time((await here.apply())["metadata"]["creationTimestamp"])
        await here.until_runs("sft")
        await here.edit(deadlines={field: int((datetime.now(UTC) - created).total_seconds()) + 4})
        await here.stays(lambda: outcomes(here.sightings.run(), "sft") == ["Running"], "its time is not over", 2)
        run = await here.until_finished()
        assert condition(run, "Finished")["reason"] == reason, sentence(run)
        assert outcomes(run, "rlvr") == []
        here.assert_created("demo-sft-a1")


async def test_a_finished_run_is_deleted_when_its_ttl_is_over_and_not_before(plane):
    async with scene(plane) as here:
        await here.apply(ONE, ttlSecondsAfterFinished=4)
        await here.until_finished()
        await here.stays(lambda: here.sightings.run(), "it is there to be looked at", 2)
        await here.until_gone()
        here.assert_created("demo-sft-a1")


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
async def test_nothing_is_ever_created_again_for_a_finished_run(plane, end):
    async with scene(plane) as here:
        here.player.default = succeeds if end == "Succeeded" else fails(FailureClass.USER_ERROR)
        gate = asyncio.Event()

        async def lingering(pod):
            await gate.wait()
            await pod.remove()

        here.player.last_act = lingering
        await here.apply(ONE)
        await here.until(lambda: is_finished(here.sightings.run()), "it is finished")
        told = story(here.sightings.run())
        await here.delete("rayclusters", "demo-sft-a1", propagationPolicy="Orphan")  # first, else KubeRay makes another head
        for pod in here.sightings.pods():
            await here.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)
        gate.set()
        await here.until_bare()
        await here.operator.restart()
        await here.edit(ttlSecondsAfterFinished=3600)
        await here.until(lambda: here.sightings.run()["status"]["observedGeneration"] == 2, "the edit is seen")
        await here.api.patch(place(here.namespace, "prismruns", "demo"), {"metadata": {"finalizers": [], "annotations": {"a": "b"}}})
        await here.operator.restart()
        await here.edit(ttlSecondsAfterFinished=7200)
        await here.until(lambda: here.sightings.run()["status"]["observedGeneration"] == 3, "the edit is seen")
        await here.stays(lambda: not here.sightings.clusters(), "nothing is started", 2)
        here.assert_created("demo-sft-a1")
        after = story(here.sightings.run())
        assert _without_generations(after) == _without_generations(told)
        assert after["summary"] == end


def _without_generations(value):
    if isinstance(value, dict):
        return {key: _without_generations(each) for key, each in value.items() if key != "observedGeneration"}
    return [_without_generations(each) for each in value] if isinstance(value, list) else value
