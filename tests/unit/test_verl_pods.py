"""Engine verl on a cluster: the pods have what Ray, vLLM and NCCL need, and what would wait for ever or fail late is refused at once."""

import re

import pytest

from builders import at, make_run
from prism_operator.cluster import make_ray_cluster
from prism_operator.decide import decide
from prism_operator.kube.survey import cluster_problems
from prism_operator.problems import format_path
from prism_operator.settings import Settings
from prism_operator.sizing import num_bytes
from prism_trainer.contract.pod import PodJob

PVC = {"pvc": {"claimName": "claim"}}
BUCKET = {"objectStore": {"uri": "s3://bucket/prefix"}}
GPUS = {"nodes": 2, "gpusPerNode": 8}
SETTINGS = Settings(stage_image="cpu", sft_image="sft", rl_image="rl", eval_image="eval")


def run_of(kind="rlvr", resources=GPUS, **spec):
    return make_run(**{"storage": PVC, "engine": "verl", "resources": resources, **spec}).stage(kind)


def cluster(run):
    scene = run.scene()
    return make_ray_cluster(scene.plan, decide(scene.plan, scene.observe(), at(0)).start, SETTINGS)


def head(run):
    return cluster(run)["spec"]["headGroupSpec"]


def containers(group):
    return {container["name"]: container for container in group["template"]["spec"]["containers"]}


def ray_and_stage(run):
    ray, stage = containers(head(run)).values()
    return ray, stage


def env(container):
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def refusals(run):
    return {format_path(problem.path): problem.sentence for problem in cluster_problems(run.run())}


# -- images ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "engine", "image"),
    [
        ("sft", "verl", "sft"),
        ("discriminator", "verl", "rl"),
        ("rlvr", "verl", "rl"),
        ("evaluation", "verl", "eval"),
        ("sft", "local", "cpu"),
        ("evaluation", "local", "cpu"),
    ],
)
def test_a_stage_runs_in_the_image_that_has_its_library(kind, engine, image):
    run = run_of(kind, {"gpusPerNode": 8}, engine=engine)
    assert [container["image"] for container in ray_and_stage(run)] == [image, image]
    assert env(ray_and_stage(run)[1])["PRISM_IMAGE"] == image


def test_the_image_of_the_run_wins_over_the_operators_and_that_of_the_stage_over_both():
    assert ray_and_stage(run_of(image="mine"))[0]["image"] == "mine"
    run = run_of(image="mine")
    run.raw["spec"]["stages"][0]["image"] = "stages"
    assert ray_and_stage(run)[0]["image"] == "stages"


@pytest.mark.parametrize(
    ("kinds", "together"),
    [
        (("discriminator", "rlvr"), ["discriminator", "rlvr"]),
        (("sft", "discriminator", "rlvr"), ["sft"]),
        (("rlvr", "evaluation"), ["rlvr"]),
    ],
)
def test_stages_share_a_cluster_only_where_they_share_an_image(kinds, together):
    run = make_run(storage=PVC, engine="verl", resources=GPUS, clusterPolicy="Reuse")
    for kind in kinds:
        run.stage(kind)
    annotations = head(run)["template"]["metadata"]["annotations"]
    assert [PodJob.model_validate_json(text).job.stage for text in annotations.values()] == together


# -- GPUs, CPUs and memory -------------------------------------------------------------------------------------------------------------


def test_rays_containers_have_the_gpus_and_the_stage_has_none_and_sees_none():
    body = cluster(run_of())
    (worker,) = containers(body["spec"]["workerGroupSpecs"][0]).values()
    ray, stage = ray_and_stage(run_of())
    assert [c["resources"]["limits"]["nvidia.com/gpu"] for c in (ray, worker)] == ["8", "8"]
    assert "nvidia.com/gpu" not in stage["resources"].get("limits", {}) and env(stage)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_cores_and_memory_that_are_not_given_are_asked_for_by_the_number_of_gpus():
    ray, _ = ray_and_stage(run_of())
    assert ray["resources"]["requests"] == {"cpu": "28", "memory": "128Gi"} and "memory" not in ray["resources"]["limits"]


def test_what_is_given_is_asked_for_as_given():
    ray, _ = ray_and_stage(run_of(resources={**GPUS, "cpus": 96, "memory": "1Ti"}))
    assert ray["resources"]["requests"] == {"cpu": "96", "memory": "1Ti"} and ray["resources"]["limits"]["memory"] == "1Ti"


@pytest.mark.parametrize("resources", [GPUS, {"gpusPerNode": 1}, {"gpusPerNode": 8, "cpus": 28}])
def test_ray_counts_enough_cpus_for_verls_placement_groups_and_all_that_runs_beside_them(resources):
    """Three a GPU, two of TransferQueue, and two for those that count while they are placed."""
    params = head(run_of(resources=resources))["rayStartParams"]
    gpus = resources["gpusPerNode"]
    assert int(params["num-cpus"]) >= 3 * gpus + 2 + 2 and params["num-gpus"] == str(gpus)


@pytest.mark.parametrize(("resources", "size"), [(GPUS, "64Gi"), ({"gpusPerNode": 1}, "8Gi"), ({**GPUS, "sharedMemory": "100Gi"}, "100Gi")])
def test_shared_memory_grows_with_the_gpus_and_rays_object_store_has_half_of_it(resources, size):
    group = head(run_of(resources=resources))
    (shared,) = [volume["emptyDir"] for volume in group["template"]["spec"]["volumes"] if volume["name"] == "dshm"]
    assert shared == {"medium": "Memory", "sizeLimit": size}
    assert int(group["rayStartParams"]["object-store-memory"]) * 2 == num_bytes(size)


@pytest.mark.parametrize(("quantity", "expected"), [("1Ki", 1024), ("1.5Gi", 3 * 2**29), ("2M", 2_000_000), ("7", 7), ("1000m", 1)])
def test_a_quantity_of_kubernetes_is_read_in_bytes(quantity, expected):
    assert num_bytes(quantity) == expected


def test_every_container_knows_how_nccl_is_to_behave_and_the_users_word_wins():
    run = run_of(env=[{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "NCCL_SOCKET_IFNAME", "value": "eth1"}])
    for container in ray_and_stage(run):
        given = env(container)
        assert (given["NCCL_DEBUG"], given["TORCH_NCCL_ASYNC_ERROR_HANDLING"], given["NCCL_SOCKET_IFNAME"]) == ("INFO", "1", "eth1")
        assert len(given) == len(container["env"])
    assert "NCCL_SOCKET_IFNAME" not in env(ray_and_stage(run_of())[0])


def test_network_cards_are_asked_for_with_ipc_lock_and_only_by_rays_containers():
    ray, stage = ray_and_stage(run_of(resources={**GPUS, "rdma": {"rdma/hca": 8}}))
    assert ray["resources"]["limits"]["rdma/hca"] == "8"
    assert ray["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert "limits" not in stage["resources"] and stage["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert ray_and_stage(run_of())[0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_job_says_how_many_machines_and_gpus_it_has():
    (text,) = head(run_of())["template"]["metadata"]["annotations"].values()
    pod = PodJob.model_validate_json(text)
    assert (pod.num_nodes, pod.job.nodes, pod.job.gpus_per_node) == (2, 2, 8)


def test_nothing_serves_a_dashboard():
    assert head(run_of())["rayStartParams"]["include-dashboard"] == "false"


# -- refusals --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "spec", "path", "sentence"),
    [
        ({}, {}, "gpusPerNode", "computes on GPUs, and found 0; give their number"),
        ({**GPUS, "cpus": 27}, {}, "cpus", "27 cores are too few for 8 GPUs: .* give at least 28, or leave it out"),
        (GPUS, {"storage": BUCKET}, "nodes", "2 machines are asked for, .* use storage.pvc, or 1 machine"),
        ({**GPUS, "workers": 2}, {}, "workers", "found 2 Ray workers for 2 machines, .* use 1, or leave it out"),
        ({**GPUS, "rdma": {"hca": 1}}, {}, "rdma", "found 'hca'; expected the resource of a device plugin, such as rdma/hca"),
        ({"rdma": {"rdma/hca": 1}}, {"engine": "local"}, "rdma", "engine 'local' computes on one machine"),
        ({"nodes": 2}, {"engine": "local"}, "nodes", "2 machines are asked for, and engine 'local' computes on one"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_would_wait_for_ever_or_fail_late_is_refused(resources, spec, path, sentence):
    found = refusals(run_of(resources=resources, **spec))
    assert list(found) == [f"spec.resources.{path}"]
    assert re.search(sentence, found[f"spec.resources.{path}"])


@pytest.mark.parametrize(
    ("kind", "config", "field", "sentence"),
    [
        ("rlvr", {"gpu": {"tokensPerGpu": 4096}}, "gpu.tokensPerGpu", "gpu.tokensPerGpu is 4096, .* give at least "),
        ("alignment", {"rollout": {"topP": 0.7}}, "rollout.topP", "engine verl draws from the whole; give 1"),
        ("rlvr", {"promptsPerStep": 3, "rollout": {"groupSize": 3}}, "promptsPerStep", "9 responses, .* evenly over 16 GPUs"),
        ("sft", {"batchSize": 24, "microBatchSize": 1}, "batchSize", "24 rows .* the stage 16 GPUs; give a multiple of 16"),
        ("discriminator", {"batchSize": 16, "microBatchSize": 2}, "batchSize", "8 rows .* the stage 16 GPUs"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_configuration_that_does_not_fit_is_refused_before_the_stages_before_it_are_spent(kind, config, field, sentence):
    found = refusals(make_run(engine="verl", storage=PVC, resources=GPUS).stage(kind, config=config))
    assert list(found) == [f"spec.stages[0].config.{field}"]
    assert re.search(sentence, found[f"spec.stages[0].config.{field}"])


def test_gpus_for_the_discriminator_alone_are_not_the_policys():
    config = {"promptsPerStep": 3, "rollout": {"groupSize": 4}, "gpu": {"discriminatorGpus": 4}}
    assert refusals(make_run(engine="verl", storage=PVC, resources={"gpusPerNode": 8}).stage("alignment", config=config)) == {}


def test_a_value_of_the_stage_is_refused_where_it_stands():
    run = run_of()
    run.raw["spec"]["stages"][0]["resources"] = {"cpus": 2}
    assert list(refusals(run)) == ["spec.stages[0].resources.cpus"]


@pytest.mark.parametrize(
    "run",
    [
        run_of(),
        run_of(resources={"gpusPerNode": 1}, storage=BUCKET),
        run_of(resources={**GPUS, "workers": 1, "cpus": 28}),
        run_of(resources={"cpus": 1}, env=[{"name": "PRISM_VERL_ON_CPU", "value": "1"}]),
    ],
)
def test_what_can_be_carried_out_is_not_refused(run):
    assert refusals(run) == {}


def test_a_skipped_stage_needs_nothing():
    run = make_run(storage=PVC, engine="verl").stage("sft", checkpoint={"uri": "old"})
    assert refusals(run) == {}
