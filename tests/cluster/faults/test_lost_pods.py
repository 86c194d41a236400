"""Pods and RayClusters are taken away, or never come. Each loss ends as its class's policy says."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from cluster.faults.api import place
from cluster.faults.runs import FIRST, attempts, is_finished, make_run, outcomes, sentence, stage
from cluster.faults.scene import scene
from cluster.faults.sightings import is_head
from cluster.faults.stage_player import runs

pytestmark = pytest.mark.cluster

ONE = stage(FIRST)


async def evicted(pod):
    await pod.run()
    await pod.lose("Evicted", "The node was low on resource: memory.")


async def disrupted(pod):
    """As the scheduler takes a pod away for another: told first, then deleted."""
    await pod.run()
    await pod.lose("", "preempted to accommodate a higher priority pod", disruption="PreemptionByScheduler")


async def out_of_memory(pod):
    await pod.run()
    await pod.end(FIRST, 137, reason="OOMKilled")


async def crashed(pod):
    await pod.run()
    await pod.end(FIRST, 139)


async def ray_ended(pod):
    """A second before the stage has saved."""
    await pod.run()
    before = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    pod.states["ray-head"] = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": before}}
    await pod.tell()


async def delete_head(here):
    await here.delete("pods", here.sightings.head("demo-sft-a1")["metadata"]["name"])


async def delete_head_at_once(here):
    await here.delete("pods", here.sightings.head("demo-sft-a1")["metadata"]["name"], gracePeriodSeconds=0)


async def delete_worker(here):
    """Not in the second in which KubeRay found the gang whole: its substitute would pass for one of the first."""
    await here.until(lambda: any(is_provisioned(cluster) for cluster in here.sightings.clusters()), "the gang is whole")
    await asyncio.sleep(1.1)
    worker = next(pod for pod in here.sightings.pods() if not is_head(pod))
    await here.delete("pods", worker["metadata"]["name"], gracePeriodSeconds=0)


def is_provisioned(cluster):
    conditions = (cluster.get("status") or {}).get("conditions") or []
    return any(each["type"] == "RayClusterProvisioned" and each["status"] == "True" for each in conditions)


async def delete_cluster(here):
    await here.delete("rayclusters", "demo-sft-a1")


async def delete_cluster_in_the_foreground(here):
    await here.delete("rayclusters", "demo-sft-a1", propagationPolicy="Foreground")


async def delete_cluster_and_orphan_its_pods(here):
    await here.delete("rayclusters", "demo-sft-a1", propagationPolicy="Orphan")


ACTS = {
    delete_head: "Stopped Preempted",
    delete_head_at_once: "Failed HeadLost",
    delete_worker: "Failed NodeLost",
    delete_cluster: "Stopped Preempted",
    delete_cluster_in_the_foreground: "Stopped Preempted",
    delete_cluster_and_orphan_its_pods: "Stopped Preempted",
}


@pytest.mark.parametrize("act", list(ACTS), ids=lambda act: act.__name__)
async def test_what_somebody_deletes_in_mid_stage_is_tried_again(plane, act):
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = runs
        await here.apply(stage(FIRST, resources={"workers": 1}))
        await here.until_runs("sft")
        await act(here)
        run = await here.until_finished()
        assert outcomes(run, "sft") == [ACTS[act], "Succeeded"], sentence(run)
        here.assert_created("demo-sft-a1", "demo-sft-a2")


PARTS = {evicted: "Failed NodeLost", disrupted: "Stopped Preempted", crashed: "Failed NodeLost", ray_ended: "Failed HeadLost"}


@pytest.mark.parametrize("part", list(PARTS), ids=lambda part: part.__name__)
async def test_a_pod_that_is_lost_in_mid_stage_is_tried_again(plane, part):
    async with scene(plane) as here:
        here.player.parts["demo-sft-a1"] = part
        await here.apply(ONE)
        run = await here.until_finished()
        assert outcomes(run, "sft") == [PARTS[part], "Succeeded"], sentence(run)
        here.assert_created("demo-sft-a1", "demo-sft-a2")


async def test_memory_that_ran_out_ends_the_run_unless_its_budget_allows_another_try(plane):
    async with scene(plane) as here:
        here.player.parts = {"demo-sft-a1": out_of_memory, "again-sft-a1": out_of_memory}
        await here.apply(ONE)
        await here.apply(ONE, name="again", retries={"outOfMemory": 1})
        run, again = await here.until_finished(), await here.until_finished("again")
        assert outcomes(run, "sft") == ["Failed OutOfMemory"]
        assert (run["status"]["summary"], again["status"]["summary"]) == ("Failed", "Succeeded")
        assert outcomes(again, "sft") == ["Failed OutOfMemory", "Succeeded"]


async def test_an_image_that_never_comes_spends_the_budget_of_the_control_plane(plane):
    async def no_image(pod):
        await pod.wait_for("stage-sft", "ImagePullBackOff", 'Back-off pulling image "nowhere/nothing"')

    async with scene(plane) as here:
        here.player.default = no_image
        await here.apply(ONE, deadlines={"startSeconds": 5}, retries={"controlPlane": 1})
        told = await here.until_told("ClusterReady", reason="ImagePullFailed")
        assert "nowhere/nothing" in told["message"]
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Failed ControlPlane"] * 2
        here.assert_created("demo-sft-a1", "demo-sft-a2")


async def test_a_node_that_takes_no_pods_is_told_of_and_waited_for(plane):
    async with scene(plane) as here:
        await here.apply(ONE, podTemplate={"spec": {"nodeSelector": {"there": "not-yet"}}})
        told = await here.until_told("ClusterReady", reason="Unschedulable")
        assert "didn't match Pod's node affinity/selector" in told["message"]
        await here.api.patch("/api/v1/nodes/faults", {"metadata": {"labels": {"there": "not-yet"}}})
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Succeeded"]


async def set_quota(here, resource, count):
    """And wait until it is in force."""
    where = place(here.namespace, "resourcequotas", "tight")
    if await here.api.get(where) is None:
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}, "spec": {"hard": {resource: count}}}
        await here.api.create(place(here.namespace, "resourcequotas"), body)
    else:
        await here.api.patch(where, {"spec": {"hard": {resource: count}}})
    while ((await here.api.get(where))["status"].get("hard") or {}).get(resource) != count:
        await asyncio.sleep(0.1)


async def test_a_quota_of_pods_is_told_of_and_the_run_goes_on_when_it_is_raised(plane):
    async with scene(plane) as here:
        await set_quota(here, "pods", "0")
        await here.apply(ONE)
        told = await here.until_told("ClusterReady", reason="QuotaExceeded")
        assert "exceeded quota: tight" in told["message"]
        num_writes = len(here.proxy.writes())
        await here.stays(lambda: not is_finished(here.sightings.run()), "it waits", 4)
        assert len(here.proxy.writes()) <= num_writes + 1  # KubeRay tries again and again, and each try has a message of its own
        await set_quota(here, "pods", "5")
        run = await here.until_finished()
        assert outcomes(run, "sft") == ["Succeeded"]
        here.assert_created("demo-sft-a1")


async def test_a_quota_of_rayclusters_is_told_of_and_tried_again(plane):
    async with scene(plane) as here:
        await set_quota(here, "count/rayclusters.ray.io", "0")
        await here.apply(ONE)
        assert "exceeded quota: tight" in await here.until_reason("StartRefused")
        await set_quota(here, "count/rayclusters.ray.io", "1")
        run = await here.until_finished()
        assert [each["number"] for each in attempts(run, "sft")] == [1]
        assert outcomes(run, "sft") == ["Succeeded"]


async def test_somebody_elses_raycluster_of_the_same_name_is_left_alone_and_told_of(plane):
    async with scene(plane) as here:
        head = {"rayStartParams": {}, "template": {"spec": {"containers": [{"name": "ray-head", "image": "i"}]}}}
        spec = {"suspend": True, "rayVersion": "2.60.0", "headGroupSpec": head, "workerGroupSpecs": []}
        body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "demo-sft-a1"}, "spec": spec}
        foreign = await here.api.create(place(here.namespace, "rayclusters"), body)
        await here.apply(ONE)
        assert "RayCluster demo-sft-a1 exists and does not belong to this PrismRun" in await here.until_reason("StartRefused")
        await here.delete("prismruns", "demo")
        await here.until_gone()
        left = await here.api.get(place(here.namespace, "rayclusters", "demo-sft-a1"))
        assert (left["metadata"]["uid"], left["spec"]["suspend"], "deletionTimestamp" in left["metadata"]) == (
            foreign["metadata"]["uid"],
            True,
            False,
        )
        await here.api.create(place(here.namespace, "prismruns"), make_run(ONE))
        await here.until_reason("StartRefused")
        await here.delete("rayclusters", "demo-sft-a1")
        assert outcomes(await here.until_finished(), "sft") == ["Succeeded"]
