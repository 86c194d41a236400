"""`kubectl prism` against a real API server, real pods and the operator as it is in the working tree."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from builders import make_run

ROOT = Path(__file__).parents[2]
PRISM = Path(sys.executable).with_name("prism")
AS_PLUGIN = "import sys; from prism_operator.cli import kubectl_prism; sys.exit(kubectl_prism())"
CRD = ROOT / "crds/prismruns.prism.dev.yaml"
STAGE_SECONDS = 300
"""For a pod to be started and to fail, on a machine that is busy with other things."""


@pytest.fixture
def here(cluster, namespace):
    """`kubectl prism` in a namespace of the test's own; the finished process."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRD)
    cluster.kubectl("wait", "--for=condition=Established", "crd/prismruns.prism.dev", "--timeout=30s")

    def call(*arguments, check=True, kubeconfig=None):
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig or cluster.kubeconfig()), "COLUMNS": "160"}
        command = [sys.executable, "-c", AS_PLUGIN, *map(str, arguments), "-n", namespace]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=STAGE_SECONDS)
        assert "Traceback" not in done.stderr
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def operator(cluster, namespace, tmp_path):
    """One that looks after the namespace."""
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig()),
        "PRISM_WATCH_NAMESPACES": namespace,
        "PRISM_STAGE_IMAGE": cluster.trainer_image,
        "PRISM_METRICS_PORT": "0",
        "PRISM_HEALTH_PORT": "0",
        "PRISM_LOG_FORMAT": "text",
    }
    with (tmp_path / "operator.log").open("w") as log:
        process = subprocess.Popen([PRISM, "operator"], stdout=log, stderr=log, env=environment)
        yield process
        cluster.kubectl("delete", "prismruns", "--all", f"--namespace={namespace}", "--timeout=150s", timeout=180)
        process.terminate()
        process.wait(30)


def run_without_model(name="demo"):
    """Its stage starts for real, and fails at once: nothing lies in the volume."""
    pvc = {"pvc": {"claimName": "runs"}}
    builder = make_run(name, storage=pvc, model={"uri": "nothing"}, retries={"controlPlane": 0})
    return builder.stage("sft").raw


def wait_for(holds, seconds=STAGE_SECONDS):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(1)
    raise AssertionError(f"did not come true within {seconds} s")


def test_the_story_of_a_run_that_waits_fails_and_is_tried_again(cluster, namespace, operator, here):
    cluster.apply(run_without_model(), namespace)
    pending = wait_for(lambda: (shown := here("status", "demo").stdout) and 'persistentvolumeclaim "runs" not found' in shown and shown)
    assert re.search(r"ClusterReady +False +\S+ +Unschedulable", pending)
    assert "has not started (pod demo-sft-a1-head" in here("logs", "demo", check=False).stderr

    cluster.make_volume(namespace, "runs")
    followed = here("logs", "demo", "-f")
    assert "pod demo-sft-a1-head" in followed.stderr and "Stage 'sft' failed in attempt 1" in followed.stderr
    assert "nothing lies at '/prism/storage/nothing'" in followed.stdout
    failed = here("status", "demo", "-w", check=False)
    assert failed.returncode == 1 and "sft            failed: " in failed.stdout

    assert "is finished (Failed)" in here("suspend", "demo", check=False).stderr
    wait_for(lambda: not cluster.list("pods", namespace))
    gone = here("logs", "demo", check=False)
    assert gone.returncode == 1 and "demo/stages/sft/attempt-1/log.txt in PersistentVolumeClaim 'runs'" in gone.stderr

    assert here("retry", "demo").stdout.startswith("demo-2 is made from demo\n  sft: starts anew")
    assert here("suspend", "demo-2", "--wait").stdout.splitlines()[-1].startswith("demo-2 is suspended")
    assert not cluster.list("rayclusters", namespace, "prism.dev/run=demo-2")
    assert "goes on from its last checkpoint" in here("resume", "demo-2").stdout
    wait_for(lambda: cluster.list("rayclusters", namespace, "prism.dev/run=demo-2"))


def test_the_server_adds_its_problems_with_their_lines(cluster, namespace, here, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(run_without_model(), sort_keys=False))
    assert "valid, also for the API server" in here("validate", "--server", file).stdout
    assert cluster.get("prismrun", "demo", namespace) is None, "nothing was stored"
    cluster.apply(run_without_model(), namespace)
    moved = {**run_without_model(), "metadata": {"name": "demo"}}
    moved["spec"]["storage"]["pvc"]["claimName"] = "elsewhere"
    file.write_text(yaml.safe_dump(moved, sort_keys=False))
    refused = here("validate", "--server", file, check=False)
    assert refused.returncode == 1 and "the storage of a run stays as it is" in refused.stdout


def test_whoever_may_only_look_is_told_what_is_missing(cluster, namespace, here, tmp_path):
    cluster.apply(run_without_model(), namespace)
    cluster.kubectl("create", "serviceaccount", "guest", "-n", namespace)
    rights = ["--verb=get,list,watch", "--resource=prismruns.prism.dev"]
    cluster.kubectl("create", "role", "look", *rights, "-n", namespace)
    cluster.kubectl("create", "rolebinding", "look", "--role=look", f"--serviceaccount={namespace}:guest", "-n", namespace)
    token = cluster.kubectl("create", "token", "guest", "-n", namespace).strip()
    document = yaml.safe_load(Path(cluster.kubeconfig()).read_text())
    document["users"] = [{"name": document["users"][0]["name"], "user": {"token": token}}]
    guest = tmp_path / "guest.kubeconfig"
    guest.touch(mode=0o600)
    guest.write_text(yaml.safe_dump(document))

    assert "demo" in here("status", "demo", kubeconfig=guest).stdout
    refused = here("suspend", "demo", kubeconfig=guest, check=False)
    assert refused.returncode == 1
    assert f"may not patch prismruns.prism.dev in namespace '{namespace}'. The ClusterRole 'edit' allows it" in refused.stderr
    everywhere = here("status", "-A", kubeconfig=guest, check=False)
    assert "may not list prismruns.prism.dev in all namespaces" in everywhere.stderr
    assert token not in refused.stderr + everywhere.stderr


def test_json_is_what_kubectl_prints(cluster, namespace, here):
    cluster.apply(run_without_model(), namespace)
    shown = json.loads(here("status", "demo", "-o", "json").stdout)
    stored = cluster.get("prismrun", "demo", namespace)
    stored["metadata"].pop("managedFields", None)
    assert shown["metadata"]["uid"] == stored["metadata"]["uid"] and shown["spec"] == stored["spec"]
