"""Ranks on a Ray cluster: a real one, on this machine, that believes it has two GPUs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import psutil
import pytest
import ray

from prism_trainer.contract.environments import ON_CPU
from prism_trainer.engines.ranks.launch import Machine, find_machines, run_ranks
from prism_trainer.errors import GangError, PrismError

pytestmark = pytest.mark.long

ROLE = """
import os, time
from prism_trainer.errors import DataError

def main(folder):
    rank = os.environ["RANK"]
    seen = [os.environ.get(name, "-") or "-" for name in ("WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR")]
    (folder / f"{rank}.txt").write_text(" ".join([*seen, str(os.getpid())]))
    if (folder / "fail").exists() and rank == "1":
        raise DataError("row 7 is broken")
    if (folder / "fail").exists() or (folder / "wait").exists():
        time.sleep(600)
"""


STAGE = """
import os, signal
from pathlib import Path
from prism_trainer.engines.ranks.launch import find_machines
from prism_trainer.reporting import Reporter

with Reporter(Path("reports"), "sft", 1) as reporter:
    machines = find_machines()
    os.kill(os.getpid(), signal.SIGTERM)
    print(machines.world_size, reporter.stop_requested)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    modules = tmp_path_factory.mktemp("modules")
    (modules / "role.py").write_text(ROLE)
    path = f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    ray.init(
        address="local", num_cpus=1, num_gpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def machines(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    return find_machines()


def test_a_node_with_two_gpus_has_two_ranks_that_see_both(machines, tmp_path):
    assert machines.all == (Machine(2, 2, ray.get_runtime_context().get_node_id()),)
    run_ranks("role", tmp_path, machines, lambda: None)
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.txt").read_text().split()[:3] == ["2", str(rank), "0,1"]


def test_gpus_that_are_only_counted_count_ranks(machines, monkeypatch, tmp_path):
    monkeypatch.setenv(ON_CPU, "1")
    counted = find_machines()
    assert (counted.world_size, counted.have_gpus) == (2, False)
    run_ranks("role", tmp_path, counted, lambda: None)
    assert {(tmp_path / f"{rank}.txt").read_text().split()[0] for rank in (0, 1)} == {"2"}


def test_a_rank_that_fails_there_ends_all_with_its_sentence(machines, tmp_path):
    (tmp_path / "fail").touch()
    with pytest.raises(PrismError, match=r"row 7 is broken \(rank 1 of 2\)"):
        run_ranks("role", tmp_path, machines, lambda: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "0.txt").read_text().split()[-1]), 0)


def test_a_node_that_is_lost_ends_the_attempt_as_such(machines, tmp_path):
    """The agent's process is what is left of a node; the ranks it started see that it is gone."""
    (tmp_path / "wait").touch()

    def watch() -> None:
        if (tmp_path / "0.txt").exists():
            rank = psutil.Process(int((tmp_path / "0.txt").read_text().split()[-1]))
            rank.parent().kill()

    with pytest.raises(GangError, match="does not answer any more"):
        run_ranks("role", tmp_path, machines, watch)
    _, alive = psutil.wait_procs(_ranks(tmp_path), timeout=10)
    assert not alive


def test_a_stage_that_has_joined_a_cluster_still_hears_a_stop(cluster, tmp_path):
    """Ray's own handler of SIGTERM would end it before anything is saved."""
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run([sys.executable, "-c", STAGE], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split()[-2:] == ["2", "True"]


def _ranks(folder) -> list[psutil.Process]:
    found = []
    for file in folder.glob("*.txt"):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(file.read_text().split()[-1])))
    return found
