"""The look at two Ray nodes, as a process: what is sound is measured between them, and who does not answer is named."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from prism_trainer.contract.preflight import Finding, PreflightReport, PreflightRequest

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def two_nodes():
    """The first with two counted GPUs, the second with one. Gives the address."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_USAGE_STATS_ENABLED": "0"}
    store = {"num_cpus": 12, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**store, "num_gpus": 2, "include_dashboard": False, "temp_dir": folder})
    cluster.add_node(**store, num_gpus=1)
    yield cluster.address
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)
    shutil.rmtree(folder, ignore_errors=True)


def preflight(folder, address, **request):
    """Exit code, last line, report."""
    given = {"environment": "rl", "num_nodes": 2, "storage_dir": str(folder / "storage"), "on_cpu": True}
    made = PreflightRequest(ray_address=address, report_file=str(folder / "preflight.json"), **{**given, **request})
    (folder / "request.json").write_text(made.model_dump_json())
    command = [sys.executable, "-m", "prism_trainer.preflight", str(folder / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = PreflightReport.model_validate_json((folder / "preflight.json").read_bytes())
    return done.returncode, done.stdout.strip().splitlines()[-1], report


def test_sound_nodes_see_each_others_files_and_sum_together(tmp_path, two_nodes):
    code, line, report = preflight(tmp_path, two_nodes, gpus_per_node=1)
    assert code == 0 and line.startswith("preflight done in"), line
    first, second = (node.node for node in report.nodes)
    assert (first.endswith("#1"), second.endswith("#2")) == (True, True) and report.storage.unseen == {}
    (summed,) = report.all_reduce
    assert (summed.nodes, summed.ranks, summed.problem) == ((first, second), 2, "") and summed.bus_gb_per_s > 0
    assert not (tmp_path / "storage/.preflight").exists()


def test_a_node_that_cannot_give_what_is_asked_is_named_and_no_sum_is_tried(tmp_path, two_nodes):
    code, line, report = preflight(tmp_path, two_nodes, gpus_per_node=2, node_seconds=60)
    found = Finding.model_validate_json(line)
    (silent,) = [node for node in report.nodes if node.problem]
    assert code == 1 and found.failure_class == "NodeLost" and report.all_reduce == ()
    assert silent.node.endswith("#2") and found.sentence.startswith(
        f"node {silent.node} could not be looked at: Ray counts fewer GPUs on it than are asked for; look"
    )
    assert "a node could not be looked at: no sum was tried" in report.skipped


def test_a_node_that_is_missing_is_told(tmp_path, two_nodes):
    code, line, _ = preflight(tmp_path, two_nodes, gpus_per_node=1, num_nodes=3)
    assert code == 1 and "2 of 3 Ray nodes are alive" in Finding.model_validate_json(line).sentence
