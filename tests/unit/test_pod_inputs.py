"""Which inputs are fetched from where. The hub itself cannot be asked here: a stand-in answers, or nobody does."""

import json
import sys

import pytest

from pod_runs import PodRun, commit
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.report import FailureClass
from prism_trainer.hub.wanted import model_id

HUB = "import sys; from pathlib import Path; p=Path(sys.argv[4])/'snapshot'; p.mkdir(parents=True); print('noise'); print(p)"


@pytest.mark.parametrize(
    ("uri", "mount", "name"),
    [
        ("org/name", "/prism/storage", "org/name"),
        ("/prism/storage/Qwen/Qwen3-VL-4B.Instruct", "/prism/storage", "Qwen/Qwen3-VL-4B.Instruct"),
        ("s3://bucket/prefix/org/name", "s3://bucket/prefix", "org/name"),
        ("s3://bucket/prefix/org/name", "s3://bucket/prefix/", "org/name"),
        ("/prism/storage/models/org/name", "/prism/storage", None),
        ("/elsewhere/name", "/prism/storage", None),
        ("name", "/prism/storage", None),
        ("../name", "/prism/storage", None),
        ("s3://other/org/name", "s3://bucket", None),
    ],
)
def test_an_id_is_what_two_words_below_the_mount_could_be(uri, mount, name):
    assert model_id(uri, mount) == name


@pytest.fixture
def pod(tmp_path):
    return PodRun(tmp_path)


def asking_for(pod, uri, hub, revision=None):
    job = pod.job(inputs={"policy": CheckpointRef(stage="model", uri=uri, digest=None, revision=revision)})
    return pod.run(pod.write(job), hub=(sys.executable, "-c", hub))


def test_a_model_that_is_not_on_the_storage_comes_from_the_hub(pod):
    hub = f"import sys; open({str(pod.folder / 'asked')!r},'w').write(' '.join(sys.argv[2:4]))\n{HUB}"
    code, _ = asking_for(pod, str(pod.folder / "storage/org/name"), hub, "main")
    job = json.loads((pod.folder / "work/jobs/sft.json").read_text())
    assert (code, (pod.folder / "asked").read_text()) == (0, "org/name main")
    assert job["inputs"]["policy"] == {"stage": "model", "uri": str(pod.folder / "work/hf/snapshot"), "step": 0}


def test_a_model_on_the_storage_is_taken_from_there(pod):
    folder = pod.folder / "storage/org/name"
    folder.mkdir(parents=True)
    code, _ = asking_for(pod, str(folder), "raise SystemExit('the hub is not to be asked')")
    assert code == 0 and json.loads((pod.folder / "work/jobs/sft.json").read_text())["inputs"]["policy"]["uri"] == str(folder)


@pytest.mark.parametrize(("named", "taken"), [(None, "attempt-10/step-000003-final"), (1, "attempt-1/step-000009-final")])
def test_a_stages_folder_stands_for_its_last_final_checkpoint_or_the_one_with_the_digest(pod, named, taken):
    stage = pod.folder / "storage/other/checkpoints/sft"
    finals = {
        n: commit(stage / f"attempt-{n}/step-{step:06}-final", b"%d" % n, step=step, final=True, run="other")
        for n, step in ((1, 9), (10, 3))
    }
    commit(stage / "attempt-11/step-000020", step=20, run="other")
    digest = finals[named].digest if named else None
    job = pod.job(inputs={"policy": CheckpointRef(stage="model", uri=str(stage), digest=digest)})
    code, _ = pod.run(pod.write(job))
    given = json.loads((pod.folder / "work/jobs/sft.json").read_text())["inputs"]["policy"]
    assert (code, given["uri"]) == (0, str(stage / taken)) and given["digest"] == finals[named or 10].digest


@pytest.mark.parametrize(("exit_code", "failure_class"), [(1, FailureClass.USER_ERROR), (4, FailureClass.CONTROL_PLANE)])
def test_what_the_hub_refuses_is_the_last_word(pod, exit_code, failure_class):
    _, result = asking_for(pod, "org/name", f"import sys; print('model is gated', file=sys.stderr); sys.exit({exit_code})")
    assert (result.failure_class, result.message) == (failure_class, "model is gated")


def test_a_path_that_is_no_id_and_does_not_exist_is_named(pod):
    _, result = asking_for(pod, "/elsewhere/model", HUB)
    assert result.failure_class == FailureClass.USER_ERROR
    assert "input 'model': nothing lies at '/elsewhere/model'; correct its uri" in result.message


def test_a_hub_that_nobody_can_reach_may_answer_later(pod, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    job = pod.job(inputs={"policy": CheckpointRef(stage="model", uri="org/name", digest=None)})
    code, result = pod.run(pod.write(job))
    assert (code, result.failure_class) == (74, FailureClass.CONTROL_PLANE)
    assert "model 'org/name' is not on this machine, and the hub cannot be asked for it" in result.message
