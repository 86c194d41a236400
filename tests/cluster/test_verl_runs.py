"""Engine verl in real pods of a real KubeRay, on GPUs that the node only says it has: Ray and DeepSpeed, on its CPU.

Only with PRISM_TEST_VERL=1: the image takes ten minutes and 15 GB of disk to build and to hand over, and alignment and rlvr take minutes
each and 8 GB of memory.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator

import pytest

from cluster.harness import images
from cluster.harness.cluster import Cluster
from cluster.harness.locations import locked
from cluster.real_runs import CLAIM, CRD, SFT, SMALL, Place, bring_digits, operator_on

SWITCH = "PRISM_TEST_VERL"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.environ.get(SWITCH) != "1", reason=f"Engine verl's pods are tried with {SWITCH}=1: ten minutes more, 12 GB of disk."
    ),
]

GPU = "/status/capacity/nvidia.com~1gpu"
ROOM = {"spec": {"containers": [{"name": name, "resources": {"requests": SMALL}} for name in ("ray-head", "ray-worker", "stage")]}}
VERL = {
    "engine": "verl",
    "env": [{"name": "PRISM_VERL_ON_CPU", "value": "1"}],
    "podTemplate": ROOM,
    "deadlines": {"startSeconds": 300, "stopGraceSeconds": 60},
}
STUDENT = {**SFT, "engine": "local", "config": {**SFT["config"], "maxSteps": 60}}
WARM_UP = {
    "kind": "discriminator",
    "data": [{"uri": "digits/data/alignment.parquet"}],
    "config": {
        "maxSteps": 4, "batchSize": 16, "microBatchSize": 8, "saveEvery": 2, "evalEvery": 2, "studentSampling": {"maxResponseTokens": 48}
    },
}  # fmt: skip
ON_POLICY = {
    "steps": 2, "promptsPerStep": 2, "microBatchSize": 4, "saveEvery": 1, "rollout": {"groupSize": 2, "maxResponseTokens": 48},
    "gpu": {"maxPromptTokens": 128, "tokensPerGpu": 512, "rolloutSequences": 32},
}  # fmt: skip
ALIGNMENT = {"kind": "alignment", "data": [{"uri": "digits/data/alignment.parquet"}], "config": ON_POLICY}
RLVR = {"kind": "rlvr", "data": [{"uri": "digits/data/rlvr.parquet"}], "config": {**ON_POLICY, "algorithm": {"name": "grpo"}}}
ALONE = {"resources": {"gpusPerNode": 1}}


@pytest.fixture(scope="module")
def gpus(cluster: Cluster) -> Iterator[None]:
    """Two, of the node's status alone: kubelet keeps what it did not count itself."""
    _patch_node(cluster, {"op": "add", "path": GPU, "value": "2"})
    yield
    _patch_node(cluster, {"op": "remove", "path": GPU})


def _patch_node(cluster: Cluster, *operations: dict[str, str]) -> None:
    cluster.kubectl("patch", "node", "vm", "--subresource=status", "--type=json", f"--patch={json.dumps(operations)}")


@pytest.fixture(scope="module")
def place(cluster: Cluster, gpus: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if cluster.node is None:
        pytest.skip("The image is handed to the node of a cluster that the tests start themselves.")
    import build

    digits = tmp_path_factory.mktemp("digits")
    build.COUNTS = {"curated": 200, "public": 8, "alignment": 24, "rlvr": 8, "test": 8}
    build.build(digits, seed=0)
    with locked("images"):
        images.build(images.RL)
        images.hand_over(cluster.node, images.RL)
    name = f"verl-{uuid.uuid4().hex[:6]}"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}})
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRD)
    folder = cluster.make_volume(name, CLAIM)
    assert folder is not None
    bring_digits(folder, digits)
    log = tmp_path_factory.mktemp("operator") / "log.txt"
    place = Place(cluster, name, folder)
    try:
        with operator_on(cluster, name, log, PRISM_RL_IMAGE=images.RL):
            yield place
            cluster.kubectl("delete", "prismruns", "--all", f"--namespace={name}", "--timeout=120s", timeout=150)
    finally:
        print(log.read_text()[-5000:])
        cluster.kubectl("delete", "namespace", name, "--timeout=120s", timeout=150)
        cluster.remove_volumes(name)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_stage_trains_on_every_node_of_its_gang(place: Place, nodes: int) -> None:
    name = f"nodes-{nodes}"
    place.apply(name, STUDENT, {**WARM_UP, "resources": {"gpusPerNode": 1, "nodes": nodes}}, **VERL)
    status = place.wait_for_end(name)
    conditions = {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}
    assert conditions["DiscriminatorSucceeded"] == ("True", "Verified") and conditions["Succeeded"] == ("True", "AllStagesVerified")
    stage = status["stages"][1]
    assert [attempt["outcome"] for attempt in stage["attempts"]] == ["Succeeded"]
    assert place.manifest(stage["checkpoint"]["uri"])["step"] == 4
    preflight = json.loads((place.folder / name / "stages/discriminator/attempt-1/preflight.json").read_text())
    assert len(preflight["nodes"]) == nodes and "GPUs are only counted" in preflight["skipped"][0]
    assert [one["ranks"] for one in preflight.get("allReduce", [])] == ([2] if nodes == 2 else [])


def test_verl_and_vllm_carry_alignment_and_rlvr_out_in_pods(place: Place) -> None:
    name = "on-policy"
    warm_up = {**WARM_UP, "engine": "local"}
    place.apply(name, STUDENT, warm_up, {**ALIGNMENT, **ALONE}, {**RLVR, **ALONE}, **VERL)
    status = place.wait_for_end(name, seconds=1800)
    for stage in status["stages"][2:]:
        assert [attempt["outcome"] for attempt in stage["attempts"]] == ["Succeeded"]
        assert place.manifest(stage["checkpoint"]["uri"])["step"] == 2
        metrics = place.folder / name / "stages" / stage["name"] / "attempt-1/metrics.jsonl"
        steps = [json.loads(line)["metrics"] for line in metrics.read_text().splitlines()]
        assert len(steps) == 2 and all(step["actor/grad_norm"] >= 0 and step["seconds/rollout"] > 0 for step in steps)
