"""What `prism run` would have to ignore, it refuses: a sentence each."""

import json
import os
import re
import sys

import pytest

from builders import make_manifest, make_pipeline, make_run
from prism_operator.errors import BadRunError
from prism_operator.local.interpreters import Interpreter, interpreter_of
from prism_operator.local.machine import Machine
from prism_operator.local.survey import local_problems, survey
from prism_operator.problems import format_path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    for kind in ("sft", "discriminator", "alignment", "rlvr", "evaluation"):
        (tmp_path / f"{kind}.jsonl").write_text("")
    (tmp_path / "data/folder").mkdir(parents=True)
    return tmp_path


def refusals(run, folder, num_gpus=0):
    found = local_problems(run.run(), Machine(cwd=folder, num_gpus=lambda: num_gpus))
    return {format_path(problem.path): problem.sentence for problem in found}


def test_a_pipeline_with_nothing_special_is_not_refused(folder):
    assert refusals(make_pipeline(), folder) == {}


SECRET = {"name": "s", "key": "k"}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"storage": {"pvc": {"claimName": "x"}}}, "spec.storage.pvc"),
        ({"storage": {"objectStore": {"uri": "s3://b/p"}}}, "spec.storage.objectStore"),
        ({"secrets": {"huggingFace": SECRET}}, "spec.secrets"),
        ({"queue": {"name": "q"}}, "spec.queue"),
        ({"deadlines": {"queueSeconds": 1}}, "spec.deadlines.queueSeconds"),
        ({"ttlSecondsAfterFinished": 0}, "spec.ttlSecondsAfterFinished"),
        ({"clusterPolicy": "Reuse"}, "spec.clusterPolicy"),
        ({"image": "x"}, "spec.image"),
        ({"podTemplate": {}}, "spec.podTemplate"),
        ({"resources": {"nodes": 2}}, "spec.resources.nodes"),
        ({"resources": {"gpusPerNode": 1}}, "spec.resources.gpusPerNode"),
        ({"resources": {"gpuType": "H100"}}, "spec.resources.gpuType"),
        ({"resources": {"workers": 1}}, "spec.resources.workers"),
        ({"resources": {"memory": "8Gi"}}, "spec.resources.memory"),
        ({"resources": {"sharedMemory": "8Gi"}}, "spec.resources.sharedMemory"),
        ({"resources": {"rdma": {"rdma/hca": 1}}}, "spec.resources.rdma"),
        ({"model": {"uri": "base", "revision": "v1"}}, "spec.model.revision"),
        ({"model": {"uri": "Qwen/Qwen3-VL-4B-Instruct"}}, "spec.model.uri"),
        ({"model": {"uri": "s3://bucket/model"}}, "spec.model.uri"),
        ({"model": {"uri": "."}}, "spec.model.uri"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_option_of_the_run_that_nothing_carries_out_here_is_refused(folder, spec, path):
    assert list(refusals(make_run(**spec).stage("sft"), folder)) == [path]


@pytest.mark.parametrize(
    ("kind", "fields", "path"),
    [
        ("sft", {"image": "x"}, "image"),
        ("sft", {"podTemplate": {}}, "podTemplate"),
        ("sft", {"resources": {"nodes": 3}}, "resources.nodes"),
        ("sft", {"config": {"device": "cuda"}}, "config.device"),
        ("sft", {"data": [{"uri": "missing.jsonl"}]}, "data[0].uri"),
        ("sft", {"data": [{"uri": "none-*.jsonl"}]}, "data[0].uri"),
        ("sft", {"data": [{"uri": "data/folder"}]}, "data[0].uri"),
        ("sft", {"data": [{"uri": "gs://bucket/a.jsonl"}]}, "data[0].uri"),
        ("sft", {"data": [{"uri": "sft.jsonl", "revision": "v1"}]}, "data[0].revision"),
        ("evaluation", {"config": {"benchmarks": [{"name": "mmmu", "uri": "nowhere"}]}}, "config.benchmarks[0].uri"),
        ("evaluation", {"config": {"benchmarks": [{"name": "mmmu", "uri": "s3://b/p"}]}}, "config.benchmarks[0].uri"),
        ("evaluation", {"config": {"benchmarks": [{"name": "mmmu", "uri": "base", "revision": "x"}]}}, "config.benchmarks[0].revision"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_option_of_a_stage_that_nothing_carries_out_here_is_refused(folder, kind, fields, path):
    assert list(refusals(make_run().stage(kind, **fields), folder)) == [f"spec.stages[0].{path}"]


def test_the_sentence_says_which_path_was_looked_for(folder):
    found = refusals(make_run().stage("sft", data=[{"uri": "missing.jsonl"}]), folder)
    assert str(folder / "missing.jsonl") in found["spec.stages[0].data[0].uri"]


@pytest.mark.parametrize(
    "source",
    [
        {"uri": "org/dataset"},
        {"uri": "org/dataset", "revision": "v1"},
        {"uri": "hf://datasets/org/set@v1/train-*.parquet"},
        {"uri": "s3://bucket/set.parquet"},
        {"uri": "sf*.jsonl"},
        {"uri": "./data/folder"},
    ],
    ids=lambda source: source["uri"],
)
def test_data_that_is_fetched_or_found_when_the_stage_begins_is_not_refused(folder, source):
    assert refusals(make_run().stage("sft", data=[source]), folder) == {}


def test_a_gpu_that_is_there_may_be_asked_for(folder):
    run = make_run(resources={"gpusPerNode": 1}).stage("sft", config={"device": "cuda"})
    assert refusals(run, folder, num_gpus=1) == {}


def test_a_model_that_no_stage_reads_need_not_be_there(folder):
    run = make_run(model={"uri": "nowhere"}).stage("sft", checkpoint={"uri": "base"}).stage("rlvr")
    assert refusals(run, folder) == {}


# -- engine verl -----------------------------------------------------------------------------------------------------------------------


def with_library(environment):
    return Interpreter(f"/opt/{environment}/bin/python")


def verl_refusals(run, folder, num_gpus=1, interpreter=with_library):
    found = local_problems(run.run(), Machine(cwd=folder, num_gpus=lambda: num_gpus, interpreter=interpreter))
    return {format_path(problem.path): problem.sentence for problem in found}


def test_engine_verl_runs_where_there_is_a_gpu_and_a_python_with_its_library(folder):
    assert verl_refusals(make_pipeline(engine="verl", resources={"gpusPerNode": 1}), folder) == {}


@pytest.mark.parametrize("kind", ["sft", "discriminator", "rlvr", "evaluation"])
def test_engine_verl_without_gpus_is_refused(folder, kind):
    found = verl_refusals(make_run(engine="verl").stage(kind), folder)
    assert list(found) == ["spec.resources.gpusPerNode"] and "take engine 'local'" in found["spec.resources.gpusPerNode"]


def test_engine_verl_without_gpus_is_allowed_to_tests(folder):
    run = make_run(engine="verl", env=[{"name": "PRISM_VERL_ON_CPU", "value": "1"}]).stage("rlvr")
    assert verl_refusals(run, folder, num_gpus=0) == {}


def test_a_library_that_no_python_has_is_told_once_a_stage_with_the_variable_that_names_one(folder):
    run = make_run(resources={"gpusPerNode": 1}).stage("sft").stage("rlvr", engine="verl")
    found = verl_refusals(run, folder, interpreter=interpreter_of)
    assert list(found) == ["spec.stages[1].engine"]
    assert re.search(r"stage 'rlvr': .* with verl, which this Python \(.+\) has not; name one .* PRISM_PYTHON_RL", *found.values())


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("/nowhere/python", "PRISM_PYTHON_EVAL names '/nowhere/python', which is no program"),
        ("/bin/false", "does not run as a Python"),
        (sys.executable, "which has no lmms-eval; install it there"),
    ],
)
def test_a_python_that_is_named_and_cannot_do_it_is_told(monkeypatch, named, sentence):
    monkeypatch.setenv("PRISM_PYTHON_EVAL", named)
    interpreter_of.cache_clear()
    assert sentence in interpreter_of("eval").lack
    interpreter_of.cache_clear()


def test_a_python_that_has_the_library_carries_the_stage_out(monkeypatch, tmp_path):
    (tmp_path / "lmms_eval.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PRISM_PYTHON_EVAL", sys.executable)
    interpreter_of.cache_clear()
    assert interpreter_of("eval") == Interpreter(sys.executable)
    interpreter_of.cache_clear()


def test_engine_local_needs_no_other_python(folder):
    assert interpreter_of("cpu") == Interpreter(sys.executable)


# -- the checkpoint a stage is skipped with ------------------------------------------------------------------------------------------


def checkpoint(folder, name, final=True, role="policy", step=4):
    manifest = make_manifest("sft", 1, step, final, "sha256:" + "1" * 64, role)
    (folder / name).mkdir(parents=True)
    (folder / name / "manifest.json").write_text(json.dumps(manifest.to_file()))
    return manifest.digest


def pin(folder, kind="sft", **given):
    run = make_run().stage(kind, checkpoint=given).run()
    return survey(run, folder, Machine(cwd=folder, num_gpus=lambda: 0)).pins[kind]


def test_a_checkpoint_folder_is_pinned_by_its_digest(folder):
    digest = checkpoint(folder, "old/step-000004")
    found = pin(folder, uri="old/step-000004")
    assert (found.digest, found.step, found.uri) == (digest, 4, str(folder / "old/step-000004"))


def test_a_stages_folder_means_its_newest_final_checkpoint(folder):
    for name, final in (("attempt-2/step-000004", True), ("attempt-10/step-000004", True), ("attempt-10/step-000009", False)):
        checkpoint(folder, f"sft/{name}", final)
    assert pin(folder, uri="sft").uri.endswith("attempt-10/step-000004")
    assert pin(folder, uri="sft/attempt-2").uri.endswith("attempt-2/step-000004")


def test_a_plain_hugging_face_folder_has_no_digest(folder):
    assert pin(folder, uri="base").digest is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"uri": "nowhere"}, "no checkpoint at"),
        ({"uri": "s3://bucket/x"}, "does not fetch checkpoints yet"),
        ({"uri": "base", "revision": "v1"}, "has no revisions"),
        ({"uri": "base", "digest": "sha256:" + "9" * 64}, "has no manifest.json to compare it with"),
        ({"uri": "empty"}, "neither manifest.json nor config.json"),
        ({"uri": "middle"}, "give a final one"),
        ({"uri": "judge"}, "has no folder policy/"),
        ({"uri": "good", "digest": "sha256:" + "9" * 64}, "is asked for"),
        ({"uri": "damaged"}, "no sound manifest"),
    ],
    ids=str,
)
def test_a_checkpoint_that_cannot_stand_in_is_refused(folder, given, sentence):
    (folder / "empty").mkdir()
    checkpoint(folder, "middle", final=False)
    checkpoint(folder, "judge", role="discriminator")
    checkpoint(folder, "good")
    checkpoint(folder, "damaged")
    (folder / "damaged/manifest.json").write_text("{")
    with pytest.raises(BadRunError, match=sentence) as refusal:
        pin(folder, **given)
    assert [format_path(problem.path) for problem in refusal.value.problems] == ["spec.stages[0].checkpoint"]
