"""The stage container with object storage: the trainer sees local paths, everybody else sees s3:// addresses. Against a real S3 server."""

import json
import sys
from pathlib import Path

import pytest

from local_runs import wait_for
from object_storage import bucket, failing_proxy, object_server  # noqa: F401
from pod_runs import OTHER_DIGEST, PodRun, ask_to_stop, commit
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import DataSource
from prism_trainer.contract.report import FailureClass
from prism_trainer.stores.client import ObjectClient
from prism_trainer.stores.objects import ObjectStore


@pytest.fixture
def pod(tmp_path, bucket):  # noqa: F811
    return PodRun(tmp_path, f"{bucket.uri}/demo", bucket.endpoint)


@pytest.fixture
def put(bucket, tmp_path):  # noqa: F811
    """Commit a checkpoint in the bucket, as an earlier attempt did."""
    store = ObjectStore(ObjectClient.connect(bucket.endpoint))

    def put(name, **fields):
        folder = tmp_path / "made" / name
        return store.upload_checkpoint(Path(commit(folder, **fields).uri), f"{bucket.uri}/demo/checkpoints/sft/{name}")

    return put


def manifests(bucket):  # noqa: F811
    return [
        name.removeprefix("demo/checkpoints/").removesuffix("/manifest.json") for name in bucket.names() if name.endswith("manifest.json")
    ]


def test_the_final_checkpoint_and_the_reports_are_in_the_bucket_and_nothing_else(pod, bucket):  # noqa: F811
    code, result = pod.run(pod.write(behaviour={"steps": 3}))
    assert (code, result.checkpoint.uri) == (0, f"{bucket.uri}/demo/checkpoints/sft/attempt-1/step-000003-final")
    assert manifests(bucket) == ["sft/attempt-1/step-000003-final"]
    assert bucket.names("demo/stages/sft/attempt-1") == ["log.txt", "progress.json", "result.json", "steps.txt"]
    told = json.loads(bucket.file(f"{pod.root}/stages/sft/attempt-1/result.json").read_text())
    assert told["checkpoint"]["uri"] == result.checkpoint.uri
    assert ObjectStore(ObjectClient.connect(bucket.endpoint)).verify(result.checkpoint).final


def test_checkpoints_go_up_while_training_goes_on_and_older_ones_go(pod, bucket, put):  # noqa: F811
    put("attempt-1/step-000001")
    process = pod.start(pod.write(pod.job(attempt=2), {"steps": 900, "seconds": 0.05}))
    wait_for(lambda: len(manifests(bucket)) == 1 and manifests(bucket)[0].startswith("sft/attempt-2/"), seconds=60)
    first = manifests(bucket)
    wait_for(lambda: len(manifests(bucket)) == 1 and manifests(bucket) != first, seconds=60)
    code, output = ask_to_stop(process)
    assert code == 75, output
    assert pod.message().resume_from == f"{pod.root}/checkpoints/sft/attempt-1/step-000001"


def test_after_a_stop_the_last_checkpoint_is_uploaded_before_the_end(pod, bucket):  # noqa: F811
    process = pod.start(pod.write(behaviour={"steps": 900, "seconds": 0.05}), keep_seconds=1000)
    wait_for(lambda: len(pod.steps()) > 3)
    code, output = ask_to_stop(process)
    result = pod.message()
    assert (code, result.outcome, result.checkpoint.step) == (75, "Stopped", pod.steps()[-1]), output
    assert ObjectStore(ObjectClient.connect(bucket.endpoint)).verify(result.checkpoint).step == result.checkpoint.step


def test_a_new_pod_goes_on_from_the_bucket_passing_over_what_is_damaged(pod, bucket, put):  # noqa: F811
    older, newer = put("attempt-1/step-000001"), put("attempt-1/step-000002", step=2)
    bucket.file(f"{newer.uri}/policy/model.safetensors").write_bytes(b"weightz")
    code, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (code, result.resume_from, pod.steps(2)) == (0, older.uri, [2, 3])
    log = bucket.file(f"{pod.root}/stages/sft/attempt-2/log.txt").read_text()
    assert f"'{newer.uri}/policy/model.safetensors' has another content" in log


def test_a_warm_restart_goes_on_from_what_is_not_uploaded_yet(pod):
    code, result = pod.run(pod.write(behaviour={"die_at": 2}, restarts={"NodeLost": 1}), keep_seconds=1000)
    assert (code, pod.steps()) == (0, [1, 2, 3])
    assert result.resume_from == f"{pod.root}/checkpoints/sft/attempt-1/step-000002"


def test_a_final_checkpoint_in_the_bucket_is_success_without_training(pod, put):
    final = put("attempt-1/step-000009", final=True, step=9)
    code, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (code, result.checkpoint, pod.steps(2)) == (0, final, [])


def test_a_damaged_final_checkpoint_in_the_bucket_is_refused_naming_the_file(pod, bucket, put):  # noqa: F811
    final = put("attempt-1/step-000009", final=True, step=9)
    bucket.file(f"{final.uri}/policy/model.safetensors").write_bytes(b"weightz")
    code, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (code, result.failure_class) == (65, FailureClass.CHECKPOINT_CORRUPT)
    assert f"'{final.uri}/policy/model.safetensors' has another content" in result.message


def test_when_done_only_what_is_asked_for_stays_in_the_bucket(pod, bucket, put):  # noqa: F811
    put("attempt-1/step-000001")
    put("attempt-1/step-000002", step=2, config_digest=OTHER_DIGEST)
    put("attempt-5/step-000001")
    bucket.file(f"{pod.root}/checkpoints/sft/attempt-1/step-000003").mkdir()
    bucket.file(f"{pod.root}/checkpoints/sft/attempt-1/step-000003/left").write_text("x")
    pod.run(pod.write(pod.job(attempt=2)))
    assert manifests(bucket) == ["sft/attempt-1/step-000002", "sft/attempt-2/step-000004-final", "sft/attempt-5/step-000001"]
    assert not bucket.file(f"{pod.root}/checkpoints/sft/attempt-1/step-000003/left").exists()


def test_inputs_and_data_are_copied_and_the_trainer_sees_paths(pod, bucket, put, tmp_path):  # noqa: F811
    made = put("attempt-7/step-000009", final=True, step=9, config_digest=OTHER_DIGEST)
    for name, text in {"base/config.json": "{}", "data/a.json": "[]", "data/images/1.png": "png", "data/other/2.png": "png"}.items():
        bucket.file(f"{bucket.uri}/{name}").parent.mkdir(parents=True, exist_ok=True)
        bucket.file(f"{bucket.uri}/{name}").write_text(text)
    inputs = {"policy": made, "base": CheckpointRef(stage="model", uri=f"{bucket.uri}/base", digest=None)}
    code, _ = pod.run(pod.write(pod.job(inputs=inputs, data=(DataSource(uri=f"{bucket.uri}/data/a.json"),))))
    job = json.loads((tmp_path / "work/jobs/sft.json").read_text())
    here = tmp_path / "work/s3" / bucket.name
    assert code == 0
    assert job["inputs"]["policy"] == {**made.to_dict(), "uri": str(here / "demo/checkpoints/sft/attempt-7/step-000009")}
    assert job["inputs"]["base"]["uri"] == str(here / "base") and (here / "base/config.json").read_text() == "{}"
    assert job["data"][0]["uri"] == str(here / "data/a.json")
    assert sorted(path.relative_to(here / "data").as_posix() for path in (here / "data").rglob("*.*")) == ["a.json", "images/1.png"]


def test_a_benchmarks_folder_is_copied_whole_and_one_of_the_hub_is_left_to_the_stage(pod, bucket, tmp_path):  # noqa: F811
    file = bucket.file(f"{bucket.uri}/mmmu/Math/validation-0.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"rows")
    benchmarks = ({"name": "mmmu", "uri": f"{bucket.uri}/mmmu"}, {"name": "mathvista"})
    code, _ = pod.run(pod.write(pod.job(stage="evaluation", config=EvaluationConfig(benchmarks=benchmarks))))
    job = json.loads((tmp_path / "work/jobs/evaluation.json").read_text())
    here = tmp_path / "work/s3" / bucket.name / "mmmu"
    assert code == 0 and (here / "Math/validation-0.parquet").read_bytes() == b"rows"
    assert job["config"]["benchmarks"] == [{"name": "mmmu", "uri": str(here)}, {"name": "mathvista"}]


@pytest.mark.parametrize(
    ("job", "failure_class", "sentence"),
    [
        ({"data": (DataSource(uri="s3://BUCKET/none.json"),)}, "UserError", "data set 's3://BUCKET/none.json' does not exist"),
        (
            {"inputs": {"policy": CheckpointRef(stage="model", uri="s3://BUCKET/a/b/c", digest=None)}},
            "UserError",
            "input 'model': nothing lies at 's3://BUCKET/a/b/c'",
        ),
        (
            {"inputs": {"policy": CheckpointRef(stage="x", uri="s3://BUCKET/a", digest="sha256:" + "0" * 64)}},
            "CheckpointCorrupt",
            "checkpoint of stage 'x': 's3://BUCKET/a' has no manifest.json",
        ),
    ],
    ids=["data", "model", "checkpoint"],
)
def test_what_is_not_in_the_bucket_is_named(pod, bucket, job, failure_class, sentence):  # noqa: F811
    text = pod.write(pod.job(**job)).read_text().replace("BUCKET", bucket.name)
    (pod.folder / "sft.json").write_text(text)
    _, result = pod.run(pod.folder / "sft.json")
    assert result.failure_class == failure_class and sentence.replace("BUCKET", bucket.name) in result.message


def test_a_bucket_that_is_not_there_ends_the_stage_before_it_begins(pod):
    pod.root = "s3://nowhere/demo"
    code, result = pod.run(pod.write())
    assert (code, result.failure_class) == (1, FailureClass.USER_ERROR)
    assert "has no bucket 'nowhere'" in result.message


def test_the_next_stage_in_the_same_pods_finds_the_checkpoint_without_fetching_it(pod, bucket):  # noqa: F811
    _, first = pod.run(pod.write(behaviour={"steps": 2}))
    fetched = []
    with failing_proxy(bucket.endpoint, lambda number, method, path: fetched.append((method, path))) as endpoint:
        pod.endpoint = endpoint
        inputs = {"policy": CheckpointRef(stage="sft", uri="unknown", digest=None)}
        code, _ = pod.run(pod.write(pod.job(stage="rlvr", inputs=inputs), after="sft"))
    job = json.loads((pod.folder / "work/jobs/rlvr.json").read_text())
    assert code == 0 and job["inputs"]["policy"]["digest"] == first.checkpoint.digest
    made = [path for method, path in fetched if method == "GET" and "/checkpoints/sft/" in path]
    assert {path.rsplit("/", 1)[-1] for path in made} == {"manifest.json"}
    assert job["inputs"]["policy"]["uri"] == str(pod.folder / "work/s3" / first.checkpoint.uri.removeprefix("s3://"))


def test_a_storage_that_fails_for_a_while_costs_no_training(pod, bucket):  # noqa: F811
    def fails(number, method, path):
        return method == "PUT" and number % 3 != 0

    with failing_proxy(bucket.endpoint, fails) as endpoint:
        pod.endpoint = endpoint
        code, _ = pod.run(pod.write(behaviour={"steps": 3}))
    assert (code, manifests(bucket)) == (0, ["sft/attempt-1/step-000003-final"])


def test_a_final_checkpoint_that_cannot_be_uploaded_is_no_success(pod, bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr("prism_trainer.stores.client.PATIENCE_SECONDS", (0.01,))
    with failing_proxy(bucket.endpoint, lambda number, method, path: method == "PUT" and "checkpoints" in path) as endpoint:
        pod.endpoint = endpoint
        code, result = pod.run(pod.write(behaviour={"steps": 2}))
    assert (code, result.failure_class, result.checkpoint) == (74, FailureClass.CONTROL_PLANE, None)
    assert "does not answer" in result.message and manifests(bucket) == []


def test_a_failed_upload_does_not_hide_why_the_trainer_failed(pod, bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr("prism_trainer.stores.client.PATIENCE_SECONDS", (0.01,))
    with failing_proxy(bucket.endpoint, lambda number, method, path: method == "PUT" and "checkpoints" in path) as endpoint:
        pod.endpoint = endpoint
        code, result = pod.run(pod.write(behaviour={"fail_at": 2}))
    assert (code, result.failure_class, result.checkpoint) == (1, FailureClass.USER_ERROR, None)
    assert result.message.startswith("data row 7 has no image (and its last checkpoint could not be copied:")


def test_the_trainers_sentences_name_the_addresses_of_the_storage(pod, bucket):  # noqa: F811
    says = "import json,sys; j=json.load(open(sys.argv[1])); r={'stage':'sft','attempt':1,'outcome':'Failed','failureClass':'UserError'}; "
    says += "json.dump({**r, 'message': 'look at ' + j['outputUri']}, open(j['reportDir']+'/result.json','w'))"
    _, result = pod.run(pod.write(), trainer=(sys.executable, "-c", says))
    assert result.message == f"look at {bucket.uri}/demo/checkpoints/sft/attempt-1"
