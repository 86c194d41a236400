"""The measurements themselves, as far as they go without a GPU: forms that are equal, files that are seen, lines for people."""

import threading

import pytest
import torch

from prism_trainer.contract.preflight import PreflightRequest
from prism_trainer.preflight.gpus import compare_patch_embeddings, look_at_gpus, measure_matmul, visible_problem
from prism_trainer.preflight.machine import look
from prism_trainer.preflight.storage import content_of, wait_for_all, write_own

CPU = torch.device("cpu")


def test_conv3d_and_the_product_have_the_same_gradient():
    conv3d_ms, linear_ms, error = compare_patch_embeddings(CPU, patches=8, width=32)
    assert conv3d_ms > 0 and linear_ms > 0 and error < 0.02


def test_a_product_that_comes_out_wrong_is_told(monkeypatch):
    assert measure_matmul(CPU, 64) >= 0
    monkeypatch.setattr(torch, "ones", lambda *size, **more: torch.full(size, 2.0, **more))
    with pytest.raises(RuntimeError, match="is not 64 everywhere: the GPU calculates wrongly"):
        measure_matmul(CPU, 64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without GPUs")
def test_where_torch_sees_no_gpu_it_says_why():
    assert look_at_gpus() == () and visible_problem(0, ()) == "" and visible_problem(1, ()) != ""


def test_what_every_node_wrote_is_seen_and_nothing_else(tmp_path):
    folder = str(tmp_path / "new")
    assert write_own(folder, "node-0") == ""
    assert wait_for_all(folder, ["node-0", "node-1"], 0.1) == ("node-1",)
    late = threading.Timer(0.3, write_own, (folder, "node-1"))
    late.start()
    assert wait_for_all(folder, ["node-0", "node-1"], 30) == ()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["node-0", "node-1"]


def test_half_of_a_file_is_not_seen(tmp_path):
    (tmp_path / "node-0").write_text(content_of("node-0")[:-1])
    assert wait_for_all(str(tmp_path), ["node-0"], 0.1) == ("node-0",)


def test_a_folder_that_cannot_be_written_is_told_in_the_systems_words(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in write_own(str(tmp_path / "file/below"), "node-0")


def test_a_node_tells_its_disks_and_versions(tmp_path):
    request = PreflightRequest(ray_address="a", environment="cpu", storage_dir=str(tmp_path / "not/yet"), report_file="r")
    found = look(request, "10.0.0.1", 4)
    assert {disk.path for disk in found.disks} == {"/dev/shm", "/tmp", str(tmp_path / "not/yet")} and found.problem == ""
    assert found.versions["torch"] == "2.11.0" and found.gpus == ()
