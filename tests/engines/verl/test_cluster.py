"""What a Ray cluster must have before verl is let at it."""

import inspect
import os
from pathlib import Path

import pytest
import ray
from ray._private import node as ray_node
from vllm.envs import environment_variables
from vllm.utils.network_utils import get_open_zmq_ipc_path

from prism_trainer.contract.environments import ON_CPU
from prism_trainer.contract.fitting import cpus_needed
from prism_trainer.engines.ray_cluster import connected
from prism_trainer.engines.verl.cluster import CPU_ENVIRONMENT, ENVIRONMENT, device_of, shape_of
from prism_trainer.errors import GangError, PrismError


def node(name, gpus=0, cpus=64, alive=True):
    return {"NodeID": name, "Alive": alive, "Resources": {"GPU": gpus, "CPU": cpus} if gpus else {"CPU": cpus}}


def test_nodes_with_gpus_count_and_the_head_without_does_not():
    assert shape_of([node("head"), node("a", 8), node("b", 8), node("gone", 8, alive=False)]) == (2, 8)


@pytest.mark.parametrize(
    ("nodes", "error", "sentence"),
    [
        ([node("head")], GangError, "none of the 1 Ray nodes has a GPU"),
        ([node("a", 8), node("b", 4)], PrismError, "the Ray nodes have 4 and 8 GPUs"),
        ([node("a", 8, cpus=16)], PrismError, "has 16 CPUs for 8 GPUs, .* give the stage's pods at least 28 CPUs"),
    ],
)
def test_what_would_wait_for_ever_is_refused(nodes, error, sentence):
    with pytest.raises(error, match=sentence):
        shape_of(nodes)


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_a_node_that_the_planner_and_the_preflight_find_large_enough_is_large_enough(gpus):
    enough = cpus_needed(gpus)
    assert shape_of([node("a", gpus, cpus=enough)]) == (1, gpus)
    with pytest.raises(PrismError, match=f"at least {enough} CPUs"):
        shape_of([node("a", gpus, cpus=enough - 1)])


@pytest.mark.parametrize(
    ("asked", "address", "on_cpu", "expected"),
    [
        ("auto", "10.0.0.1:6379", "", "cuda"),
        ("auto", "10.0.0.1:6379", "1", "cpu"),
        ("cpu", "10.0.0.1:6379", "", "cpu"),
        ("auto", None, "", "cpu"),
        ("auto", None, "1", "cpu"),
    ],
)
def test_a_ray_cluster_has_gpus_unless_the_stage_is_told_to_do_without(monkeypatch, asked, address, on_cpu, expected):
    monkeypatch.setenv(ON_CPU, on_cpu)
    assert device_of(asked, address) == expected


def test_vllms_sockets_lie_with_our_own_rays_and_go_with_them(monkeypatch):
    made = []

    def started(**options):
        made.append((options["_temp_dir"], get_open_zmq_ipc_path()))

    monkeypatch.setattr(ray, "init", started)
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", "/elsewhere")
    with connected(None, {}, {}):
        pass
    ((folder, socket),) = made
    assert socket.startswith(f"ipc://{folder}/") and not Path(folder).exists()
    assert os.environ["VLLM_RPC_BASE_PATH"] == "/elsewhere"


def test_a_ray_that_is_too_slow_to_come_up_is_no_mistake_of_the_users(monkeypatch):
    words = "The current node timed out during startup. "
    assert words in inspect.getsource(ray_node)

    def slow(**options):
        raise Exception(words)

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(GangError, match="Ray did not come up on this machine within 30 s"), connected(None, {}, {}):
        pass


def test_every_variable_for_vllm_is_one_that_it_knows():
    assert {name for name in (*ENVIRONMENT, *CPU_ENVIRONMENT) if name.startswith("VLLM_")} <= environment_variables.keys()
