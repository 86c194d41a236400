"""Objects only the operator can refuse, and stages that share a cluster."""

import pytest

from cluster.faults.runs import FIRST, SECOND, condition, outcomes, sentence, stage
from cluster.faults.scene import scene
from cluster.faults.stage_player import runs
from prism_trainer.contract.report import FailureClass

pytestmark = pytest.mark.cluster

BAD = {
    "verl": ({"engine": "verl"}, "spec.resources.gpusPerNode", "engine 'verl' computes on GPUs", {"engine": "local"}),
    "nodes": ({"resources": {"nodes": 2}}, "spec.resources.nodes:", "engine 'local' computes on one", {"resources": {"nodes": 1}}),
    "gpus": (
        {"resources": {"gpuType": "H100"}},
        "spec.resources.gpuType",
        "gpusPerNode is 0",
        {"resources": {"gpuType": None}},
    ),
    "wiring": (
        {"stages": [stage(FIRST, policy="nowhere")]},
        "spec.stages[0].policy",
        "nowhere",
        {"stages": [stage(FIRST)]},
    ),
    "pod": (
        {"podTemplate": {"spec": {"containers": [{"name": "ray-head", "imagePullPolicy": 7}]}}},
        "spec.podTemplate",
        "imagePullPolicy",
        {"podTemplate": None},
    ),
}
"""By name: fields of the spec, the path and words of the answer, and the edit that mends it."""


async def test_what_only_the_operator_can_refuse_is_refused_with_a_sentence_and_goes_on_when_mended(plane):
    async with scene(plane) as here:
        for name, (fields, _, _, _) in BAD.items():
            stages = fields.get("stages") or [stage(FIRST)]
            await here.apply(*stages, name=name, **{key: value for key, value in fields.items() if key != "stages"})
        for name, (_, path, words, mended) in BAD.items():
            told = await here.until_told("Accepted", status="False", name=name)
            assert path in told["message"] and words in told["message"], told
            assert here.sightings.run(name)["status"]["summary"] == "Refused"
            assert not here.sightings.clusters(name)
            await here.edit(name, **mended)
        for name in BAD:
            run = await here.until_finished(name)
            assert outcomes(run, "sft") == ["Succeeded"], sentence(run)
            assert condition(run, "Accepted")["status"] == "True"


async def test_a_refused_run_that_is_deleted_goes(plane):
    async with scene(plane) as here:
        await here.apply(engine="verl")
        await here.until_told("Accepted", status="False")
        await here.delete("prismruns", "demo")
        await here.until_gone()
        here.assert_created()


async def test_a_run_that_becomes_unsound_in_mid_stage_is_still_deleted_in_order(plane):
    async with scene(plane) as here:
        here.player.default = runs
        await here.apply()
        await here.until_runs("sft")
        await here.edit(resources={"gpuType": "H100"})
        await here.until_told("Accepted", status="False")
        await here.delete("prismruns", "demo")
        await here.until_gone()
        await here.until_bare()
        here.assert_created("demo-sft-a1")


async def test_stages_that_share_a_cluster_end_in_it_one_after_another(plane):
    async with scene(plane) as here:
        await here.apply(clusterPolicy="Reuse")
        run = await here.until_finished()
        assert outcomes(run, "sft") == outcomes(run, "rlvr") == ["Succeeded"]
        here.assert_created("demo-sft-a1")


async def test_a_stage_that_fails_in_a_shared_cluster_is_tried_again_in_one_of_its_own(plane):
    async def second_fails(pod):
        await pod.run()
        await pod.succeed(FIRST)
        await pod.fail(FailureClass.USER_ERROR, "it broke", SECOND)

    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = second_fails
        await here.apply(clusterPolicy="Reuse", retries={"userError": 1})
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Succeeded"], sentence(run)
        assert outcomes(run, "rlvr") == ["Failed UserError", "Succeeded"], sentence(run)
        here.assert_created("demo-sft-a1", "demo-rlvr-a2")


async def test_a_shared_cluster_that_is_lost_takes_only_the_stage_that_ran(plane):
    async def first_ends(pod):
        await pod.run()
        await pod.succeed(FIRST)

    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = first_ends
        await here.apply(clusterPolicy="Reuse")
        await here.until_told("RLVRSucceeded", reason="Running")
        await here.delete("rayclusters", "demo-sft-a1")
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Succeeded"], sentence(run)
        assert outcomes(run, "rlvr") == ["Stopped Preempted", "Succeeded"], sentence(run)
        here.assert_created("demo-sft-a1", "demo-rlvr-a2")
