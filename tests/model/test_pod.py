"""Real, tiny training in the stage's container: `python -m prism_trainer.pod` with a shared folder, and with object storage."""

import json
import os
import shutil
import signal

import pytest

from local_runs import wait_for
from object_storage import bucket, object_server  # noqa: F401
from pod_runs import PodRun
from prism_trainer.checkpoints import verify_checkpoint
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import DataSource
from prism_trainer.pod.places import Places

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    """A folder with a .json file and its images."""
    import build

    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "COUNTS", {"curated": 16})
        build._write_demonstrations(folder, "curated", 1, lambda task: build.curated_response(task))
    return folder


def start(pod, data, base, attempt=1):
    config = SftConfig(max_steps=12, batch_size=4, micro_batch_size=4, save_every=2)
    inputs = {"policy": CheckpointRef(stage="model", uri=base, digest=None)}
    job = pod.job(attempt, config=config, data=(DataSource(uri=data),), inputs=inputs, threads=1, system_prompt="Answer.")
    return pod.start(pod.write(job, stop_grace_seconds=300), trainer=Places().trainer, tick_seconds=0.1)


def loads(folder):
    """As anybody would load it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    return type(model).__name__, AutoProcessor.from_pretrained(folder, local_files_only=True) is not None


def stop_at_a_checkpoint(pod, process):
    """Once the first resumable checkpoint is there; its step."""
    wait_for(lambda: b"saving" in progress(pod) or step(pod) >= 3, seconds=300)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    return pod.message().checkpoint


def progress(pod):
    file = pod.local / "stages/sft/attempt-1/progress.json"
    return file.read_bytes() if file.exists() else b""


def step(pod):
    try:
        return json.loads(progress(pod))["step"]
    except ValueError:
        return 0


def test_sft_on_a_shared_folder_is_stopped_goes_on_and_can_be_loaded(tmp_path, demonstrations, base_dir):
    pod = PodRun(tmp_path)
    saved = stop_at_a_checkpoint(pod, start(pod, str(demonstrations / "curated.json"), str(base_dir)))
    assert verify_checkpoint(saved).step == saved.step > 0
    process = start(pod, str(demonstrations / "curated.json"), str(base_dir), attempt=2)
    output, _ = process.communicate(timeout=600)
    result = pod.message()
    assert (process.returncode, result.checkpoint.step, result.resume_from) == (0, 12, saved.uri), output
    assert verify_checkpoint(result.checkpoint).final and result.versions["torch"] and result.metrics["loss"] > 0
    assert [path.name for path in tmp_path.glob("storage/demo/checkpoints/sft/*/*")] == ["step-000012"]
    assert loads(f"{result.checkpoint.uri}/policy") == ("Qwen3VLForConditionalGeneration", True)


def test_sft_on_object_storage_is_stopped_goes_on_in_another_pod_and_can_be_loaded(tmp_path, bucket, demonstrations, base_dir):  # noqa: F811
    shutil.copytree(demonstrations, bucket.folder / "data")
    shutil.copytree(base_dir, bucket.folder / "base")
    pod = PodRun(tmp_path / "pod", f"{bucket.uri}/demo", bucket.endpoint)
    pod.folder.mkdir()
    data, base = f"{bucket.uri}/data/curated.json", f"{bucket.uri}/base"
    saved = stop_at_a_checkpoint(pod, start(pod, data, base))
    assert saved.uri.startswith(f"{bucket.uri}/demo/checkpoints/sft/attempt-1/")
    shutil.rmtree(pod.folder / "work")  # another pod: the same paths, and nothing there
    process = start(pod, data, base, attempt=2)
    output, _ = process.communicate(timeout=600)
    result = pod.message()
    assert (process.returncode, result.checkpoint.step, result.resume_from) == (0, 12, saved.uri), output
    assert list(result.data) == [data], "named as the object names it"
    there = bucket.file(result.checkpoint.uri)
    assert verify_checkpoint(result.checkpoint.model_copy(update={"uri": str(there)})).final
    assert [name for name in bucket.names("demo/checkpoints") if name.endswith("manifest.json")] == [
        "sft/attempt-2/step-000012/manifest.json"
    ]
    assert loads(there / "policy") == ("Qwen3VLForConditionalGeneration", True)
