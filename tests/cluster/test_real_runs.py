"""PrismRuns in real pods of a real KubeRay: from `kubectl apply` to the last checkpoint, and through what breaks on the way."""

from __future__ import annotations

import json
import uuid

import pytest
import yaml

from cluster.harness.commands import CommandFailed
from cluster.real_runs import CLAIM, CRD, EVALUATION, RLVR, ROOT, SFT, Place, bring_digits, operator_on

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def small_digits(tmp_path_factory):
    """The example's model, and a little of its data."""
    import build

    folder = tmp_path_factory.mktemp("digits")
    build.COUNTS = {"curated": 200, "public": 40, "alignment": 48, "rlvr": 16, "test": 8}
    build.build(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def place(cluster, small_digits, tmp_path_factory):
    """One namespace under Pod Security `restricted`, a claim, and an operator. It is empty at the end."""
    if cluster.node is None:
        pytest.skip("These tests look into the volume, which they can only do on the cluster they start themselves.")
    name = f"real-runs-{uuid.uuid4().hex[:6]}"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}})
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRD)
    folder = cluster.make_volume(name, CLAIM)
    bring_digits(folder, small_digits)
    log = tmp_path_factory.mktemp("operator") / "log.txt"
    place = Place(cluster, name, folder)
    try:
        with operator_on(cluster, name, log):
            yield place
            cluster.kubectl("delete", "prismruns", "--all", f"--namespace={name}", "--timeout=120s", timeout=150)
            assert not cluster.list("rayclusters", name) and not cluster.list("pods", name)
    finally:
        print(log.read_text()[-5000:])
        cluster.kubectl("delete", "namespace", name, "--timeout=120s", timeout=150)
        cluster.remove_volumes(name)


@pytest.fixture(scope="module")
def undisturbed(place):
    """Weights of the final checkpoint of a run that nothing happens to."""
    place.apply("undisturbed", SFT)
    place.wait_for_end("undisturbed")
    return place.weights("undisturbed")


def test_a_run_goes_through_its_stages_and_tells_it_all(place):
    place.apply("whole", {**SFT, "config": {**SFT["config"], "maxSteps": 5}}, RLVR, EVALUATION)
    place.kubectl("wait", "--for=condition=Finished", "prismrun/whole", "--timeout=600s", timeout=630)
    status = place.wait_for_end("whole")
    conditions = {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}
    for type_ in ("SFTSucceeded", "RLVRSucceeded", "EvaluationSucceeded"):
        assert conditions[type_] == ("True", "Verified")
    assert conditions["Finished"] == ("True", "Succeeded") and conditions["Succeeded"] == ("True", "AllStagesVerified")
    assert status["progress"] == 100 and status["provenance"]["versions"]["torch"] and status["provenance"]["data"]
    assert all("@sha256:" in image or image.startswith("sha256:") for image in status["provenance"]["images"].values())
    sft, rlvr, evaluation = (stage["checkpoint"] for stage in status["stages"])
    assert place.manifest(rlvr["uri"])["parents"] == [{"stage": "sft", "digest": sft["digest"]}]
    assert place.manifest(evaluation["uri"])["digest"] == evaluation["digest"]
    line = place.kubectl("get", "prismrun", "whole", "--no-headers").split()
    assert line[0] == "whole" and "Succeeded" in line and "100" in line


def test_a_final_checkpoint_loads_as_any_hugging_face_model(place, undisturbed):
    from transformers import AutoModelForImageTextToText

    uri = place.status("undisturbed")["checkpoint"]["uri"]
    assert AutoModelForImageTextToText.from_pretrained(place.path(uri) / "policy").num_parameters() > 1_000_000


def test_stages_of_one_shape_share_their_pods_when_asked_to(place):
    first = {**SFT, "config": {**SFT["config"], "maxSteps": 5}}
    place.apply("shared", first, {**first, "name": "sft-more"}, clusterPolicy="Reuse")
    status = place.wait_for_end("shared")
    clusters = {attempt["cluster"] for stage in status["stages"] for attempt in stage["attempts"]}
    assert clusters == {"shared-sft-a1"}
    first_digest = status["stages"][0]["checkpoint"]["digest"]
    assert place.manifest(status["stages"][1]["checkpoint"]["uri"])["parents"] == [{"stage": "sft", "digest": first_digest}]


def test_suspended_in_mid_stage_a_run_gives_its_pods_back_and_goes_on_to_the_same_checkpoint(place, undisturbed):
    place.apply("paused", SFT)
    place.wait_for_step("paused", 5)
    place.patch("paused", suspend=True)
    place.wait("it is suspended", lambda: place.condition("paused", "Suspended")["status"] == "True")
    assert not place.pods("paused") and not place.clusters("paused")
    attempt = place.stage("paused")["attempts"][0]
    assert attempt["outcome"] == "Stopped" and "failureClass" not in attempt
    place.patch("paused", suspend=False)
    status = place.wait_for_end("paused")
    assert place.weights("paused") == undisturbed
    assert "step-" in status["stages"][0]["attempts"][1]["resumeFrom"]


def test_a_head_pod_deleted_in_mid_stage_costs_an_attempt_and_not_the_work(place, undisturbed):
    place.apply("drained", SFT)
    place.wait_for_step("drained", 5)
    place.kubectl("delete", "pod", place.head("drained"), "--wait=false")
    status = place.wait_for_end("drained")
    first, second = status["stages"][0]["attempts"]
    assert (first["outcome"], first["failureClass"]) == ("Stopped", "Preempted")
    assert second["outcome"] == "Succeeded" and "attempt-1/step-" in second["resumeFrom"]
    assert place.weights("drained") == undisturbed


def test_a_trainer_that_hangs_is_started_again_in_its_own_pod(place, undisturbed):
    place.apply("hanging", SFT, deadlines={"progressSeconds": 60, "stopGraceSeconds": 5})
    place.wait_for_step("hanging", 5)
    trainer = "tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q -- '-m prism_traine[r] /'"
    find = f"for p in /proc/[0-9]*; do if {trainer}; then kill -STOP ${{p#/proc/}}; echo stopped; fi; done"
    assert "stopped" in place.kubectl("exec", place.head("hanging"), "-c", "stage-sft", "--", "bash", "-c", find)
    status = place.wait_for_end("hanging")
    [attempt] = status["stages"][0]["attempts"]
    assert attempt["outcome"] == "Succeeded" and attempt["restarts"] == {"Hang": 1}
    assert place.weights("hanging") == undisturbed


def test_a_trainer_that_raises_is_tried_as_often_as_allowed_and_its_sentence_is_told(place):
    place.apply("wrong", {**SFT, "data": [{"uri": "digits/data/nowhere.json"}]}, retries={"userError": 1})
    status = place.wait_for_end("wrong", "Failed")
    [attempt] = status["stages"][0]["attempts"]
    assert attempt["failureClass"] == "UserError" and attempt["restarts"] == {"UserError": 1}
    assert "nowhere.json" in status["message"] and "does not exist" in status["message"]


def test_a_stage_beyond_its_memory_is_out_of_memory(place):
    limited = {"spec": {"containers": [{"name": "stage", "resources": {"requests": {"memory": "200Mi"}, "limits": {"memory": "300Mi"}}}]}}
    place.apply("greedy", {**SFT, "podTemplate": limited})
    status = place.wait_for_end("greedy", "Failed")
    assert status["stages"][0]["attempts"][-1]["failureClass"] == "OutOfMemory", status["message"]


def test_a_flipped_byte_in_an_input_is_refused_by_name(place, undisturbed):
    checkpoint = place.status("undisturbed")["checkpoint"]
    uri = checkpoint["uri"]
    pinned = {"kind": "sft", "checkpoint": {"uri": uri, "digest": checkpoint["digest"]}}
    [weights] = (place.path(uri) / "policy").glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    try:
        place.apply("corrupt", pinned, RLVR)
        status = place.wait_for_end("corrupt", "Failed")
    finally:
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    assert status["stages"][1]["attempts"][-1]["failureClass"] == "CheckpointCorrupt"
    assert weights.name in status["message"]


def test_a_lost_worker_ends_the_attempt_and_a_new_gang_goes_on(place, undisturbed):
    workers = {"spec": {"containers": [{"name": "ray-worker", "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}}}]}}
    place.apply("ganged", {**SFT, "resources": {"workers": 1}, "podTemplate": workers})
    place.wait_for_step("ganged", 5)
    place.kubectl("delete", "pod", "-l", "prism.dev/run=ganged,ray.io/node-type=worker", "--wait=false")
    status = place.wait_for_end("ganged")
    first, second = status["stages"][0]["attempts"]
    assert first["failureClass"] == "NodeLost" and "worker" in first["message"]
    assert second["outcome"] == "Succeeded" and place.weights("ganged") == undisturbed


def waits_for(place, name, reason):
    return lambda: place.condition(name, "ClusterReady") if place.condition(name, "ClusterReady")["reason"] == reason else None


HELD_UP = {
    "no-image": ({"image": "prism.local/nothing:1"}, "ImagePullFailed", "prism.local/nothing:1"),
    "no-claim": ({"storage": {"pvc": {"claimName": "nowhere"}}}, "Unschedulable", '"nowhere" not found'),
    "no-secret": ({"secrets": {"huggingFace": {"name": "absent", "key": "token"}}}, "ConfigMissing", '"absent" not found'),
    "no-node": ({"resources": {"gpusPerNode": 1}}, "Unschedulable", "nvidia.com/gpu"),
}


@pytest.fixture(scope="module")
def held_up(place):
    """All at once, because each only waits."""
    for name, (spec, _, _) in HELD_UP.items():
        place.apply(name, SFT, **spec, retries={"controlPlane": 0}, deadlines={"startSeconds": 30, "stopGraceSeconds": 1})


@pytest.mark.parametrize("name", HELD_UP)
def test_what_holds_a_run_up_is_told_in_its_own_words_and_ends_with_start_seconds(place, held_up, name):
    _, reason, words = HELD_UP[name]
    event = place.wait(f"{name} ends", lambda: place.run(name)["status"] if place.condition(name, "Finished")["status"] == "True" else None)
    attempt = event["stages"][0]["attempts"][-1]
    assert attempt["failureClass"] == "ControlPlane"
    assert reason in attempt["message"] and words in attempt["message"], attempt["message"]
    place.wait_for_end(name, "Failed")


def test_a_cordoned_node_holds_a_run_up_until_it_takes_pods_again(place):
    short = {**SFT, "config": {**SFT["config"], "maxSteps": 2}}
    place.cluster.kubectl("cordon", "vm")
    try:
        place.apply("cordoned", short)
        condition = place.wait("it is unschedulable", waits_for(place, "cordoned", "Unschedulable"), 60)
        assert "unschedulable" in condition["message"]
    finally:
        place.cluster.kubectl("uncordon", "vm")
    assert [a["number"] for a in place.wait_for_end("cordoned")["stages"][0]["attempts"]] == [1]


def test_over_object_storage_a_run_hands_its_checkpoints_on(place, small_digits):
    import s3fs

    store = place.cluster.object_store
    bucket = store.make_bucket("real-runs")
    files = s3fs.S3FileSystem(key=store.access_key, secret=store.secret_key, endpoint_url=store.endpoint, skip_instance_cache=True)
    files.put(f"{small_digits}/", f"{bucket}/runs/digits/", recursive=True)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "object-store"},
        "stringData": {"credentials": store.credentials()},
    }
    place.cluster.apply(secret, place.namespace)
    credentials = {"name": "object-store", "key": "credentials"}
    storage = {"objectStore": {"uri": f"{bucket}/runs", "endpoint": store.endpoint, "credentials": credentials}}
    place.apply("bucket", {**SFT, "config": {**SFT["config"], "maxSteps": 5}}, RLVR, storage=storage)
    status = place.wait_for_end("bucket")
    sft, rlvr = (stage["checkpoint"] for stage in status["stages"])
    assert sft["uri"].startswith("s3://real-runs/runs/bucket/checkpoints/sft/attempt-1/")
    with files.open(f"{rlvr['uri']}/manifest.json") as file:
        manifest = json.load(file)
    assert manifest["digest"] == rlvr["digest"] and manifest["parents"] == [{"stage": "sft", "digest": sft["digest"]}]
    assert store.secret_key not in json.dumps(place.run("bucket"))


@pytest.fixture(scope="module")
def endless(place):
    """A run in mid-stage."""
    place.apply("endless", {**SFT, "config": {**SFT["config"], "maxSteps": 4000}})
    place.wait_for_step("endless", 5)
    return "endless"


def test_no_token_is_mounted_in_a_stages_pod_and_its_ray_takes_no_jobs_from_strangers(place, endless):
    look = "test ! -e /var/run/secrets/kubernetes.io/serviceaccount && id -u"
    stage = (place.head(endless), "-c", "stage-sft", "--")
    assert place.kubectl("exec", *stage, "sh", "-c", look).strip() == "1000"
    request = "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:8265/api/jobs/', data=b'{}', method='POST'))"
    with pytest.raises(CommandFailed, match=r"refused|401"):
        place.kubectl("exec", *stage, "python", "-c", request)


def test_a_run_deleted_in_mid_stage_takes_its_pods_with_it_and_leaves_its_checkpoints(place, endless):
    place.kubectl("delete", "prismrun", endless, "--timeout=120s", timeout=150)
    assert not place.pods(endless) and not place.clusters(endless)
    assert list((place.folder / endless / "checkpoints/sft/attempt-1").glob("step-*/manifest.json"))


def test_the_documented_example_is_what_these_runs_are_made_of():
    """The README's first run on a cluster is the example: the same kinds of stages, the same addresses."""
    example = yaml.safe_load((ROOT / "crds/examples/digits.yaml").read_text())["spec"]
    assert [stage["kind"] for stage in example["stages"]] == ["sft", "discriminator", "alignment", "rlvr", "evaluation"]
    assert example["model"]["uri"] == "digits/base" and example["storage"]["pvc"]["claimName"] == CLAIM
    assert example["stages"][0]["data"][0]["uri"] == SFT["data"][0]["uri"]
