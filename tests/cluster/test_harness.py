"""The test cluster is what the other tests take it for: it runs Ray's pods, stores, and goes away without a trace."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import s3fs

from cluster.harness.api_only import api_server
from cluster.harness.commands import CommandFailed, run
from cluster.harness.locations import running_dir
from cluster.harness.namespaces import KUBELET_SETTINGS, cgroup_name, hierarchies
from cluster.harness.node import Node
from cluster.harness.processes import start_time

pytestmark = pytest.mark.cluster
TESTS = Path(__file__).parents[1]

STAGE = """
import json, os, ray, time
deadline = time.time() + 90
while True:
    try:
        ray.init(address="127.0.0.1:6379", log_to_driver=False)
        break
    except ConnectionError:
        assert time.time() < deadline
        time.sleep(0.5)
while sum(node["Alive"] for node in ray.nodes()) < 2:
    assert time.time() < deadline
    time.sleep(0.2)
squares = ray.get([ray.remote(lambda number: number**2).remote(number) for number in range(4)])
with open("/prism/storage/written", "w") as file:
    file.write(str(os.getuid()))
with open("/dev/termination-log", "w") as file:
    json.dump({"squares": squares, "nodes": len(ray.nodes())}, file)
"""

STORE = """
import os, s3fs
store = s3fs.S3FileSystem(endpoint_url=os.environ["ENDPOINT"])
with store.open("from-a-pod/one", "wb") as file:
    file.write(b"1")
"""

RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def container(image, name, command=None, **more):
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": RESTRICTED,
        **({"command": command} if command else {}),
        **more,
    }


def pod_spec(*containers, **more):
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": RESTRICTED_POD,
        "terminationGracePeriodSeconds": 1,
        "containers": list(containers),
        **more,
    }


def ray_cluster(name, image):
    """A head with a stage container beside Ray, and one worker: the shape in which the operator runs a stage."""
    shared = [{"name": "ray-tmp", "mountPath": "/tmp/ray"}, {"name": "shm", "mountPath": "/dev/shm"}]
    storage = {"name": "storage", "mountPath": "/prism/storage"}
    token = {"secretKeyRef": {"name": name, "key": "auth_token"}}
    env = [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": token}, {"name": "HOME", "value": "/tmp"}]
    volumes = [
        {"name": "ray-tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "storage", "persistentVolumeClaim": {"claimName": "storage"}},
    ]
    small = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}}
    head = pod_spec(
        container(image, "ray-head", resources=small, volumeMounts=shared),
        container(image, "stage-sft", ["python", "-c", STAGE], resources=small, volumeMounts=[*shared, storage], env=env),
        shareProcessNamespace=True,
        volumes=volumes,
    )
    worker = pod_spec(container(image, "ray-worker", resources=small))
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name, "annotations": {"ray.io/disable-provisioned-head-restart": "true"}},
        "spec": {
            "rayVersion": "2.60.0",
            "authOptions": {"mode": "token"},
            "headGroupSpec": {"rayStartParams": {"num-cpus": "1"}, "template": {"spec": head}},
            "workerGroupSpecs": [
                {
                    "groupName": "workers",
                    "replicas": 1,
                    "minReplicas": 1,
                    "maxReplicas": 1,
                    "rayStartParams": {"num-cpus": "1"},
                    "template": {"spec": worker},
                }
            ],
        },
    }


def ended(cluster, namespace, selector, name):
    """The terminated state of a container, once there is one."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for pod in cluster.list("pods", namespace, selector):
            for status in pod["status"].get("containerStatuses", []):
                if status["name"] == name and "terminated" in status["state"]:
                    return status["state"]["terminated"]
        time.sleep(0.5)
    raise AssertionError(f"{name} did not end within 180 s")


def test_a_stage_container_beside_ray_ends_with_its_message_under_restricted_pod_security(cluster, namespace):
    folder = cluster.make_volume(namespace, "storage")
    started = time.monotonic()
    cluster.apply(ray_cluster("demo-sft-a1", cluster.trainer_image), namespace)
    state = ended(cluster, namespace, "ray.io/node-type=head", "stage-sft")
    print(f"from apply to the stage's end: {time.monotonic() - started:.1f} s")
    assert state["exitCode"] == 0, state
    assert json.loads(state["message"]) == {"squares": [0, 1, 4, 9], "nodes": 2}
    if folder is not None:
        assert (folder / "written").read_text() == "1000"


def test_a_namespace_of_the_tests_refuses_a_pod_that_runs_as_root(cluster, namespace):
    spec = {"containers": [{"name": "c", "image": cluster.trainer_image}]}
    with pytest.raises(CommandFailed, match="restricted"):
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": spec}, namespace)


def test_object_storage_answers_in_pods_and_here(cluster, namespace):
    store = cluster.object_store
    store.make_bucket("from-a-pod")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": {"credentials": store.credentials()}}
    env = [{"name": "ENDPOINT", "value": store.endpoint}, {"name": "AWS_SHARED_CREDENTIALS_FILE", "value": "/s3/credentials"}]
    mounts = [{"name": "s3", "mountPath": "/s3"}]
    writer = container(cluster.trainer_image, "writer", ["python", "-c", STORE], env=env, volumeMounts=mounts)
    spec = pod_spec(writer, volumes=[{"name": "s3", "secret": {"secretName": "s3"}}])
    cluster.apply(
        [secret, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer", "labels": {"app": "writer"}}, "spec": spec}], namespace
    )
    assert ended(cluster, namespace, "app=writer", "writer")["exitCode"] == 0
    here = s3fs.S3FileSystem(key=store.access_key, secret=store.secret_key, endpoint_url=store.endpoint, skip_instance_cache=True)
    assert here.cat("from-a-pod/one") == b"1"


def test_the_api_server_comes_back_with_what_it_knew(cluster, namespace):
    if cluster.node is None:
        pytest.skip("The API server of a cluster given by PRISM_TEST_KUBECONFIG is not ours to stop.")
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}}, namespace)
    cluster.stop("kube-apiserver")
    with pytest.raises(CommandFailed):
        cluster.get("configmap", "kept", namespace)
    cluster.start("kube-apiserver")
    assert cluster.get("configmap", "kept", namespace)["data"] == {"a": "b"}


def test_the_light_mode_needs_no_node_and_leaves_nothing():
    before = set(running_dir().iterdir())
    with api_server(kwok=True) as control_plane:
        pids = [control_plane.processes.pid(name) for name in control_plane.processes.names()]
        assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
        assert len(pids) == 5
    assert set(running_dir().iterdir()) == before
    assert [start_time(pid) for pid in pids] == [None] * 5


def traces(folder):
    """What a node could leave on this machine, with its folder's name as the mark of what is its own."""
    return {
        "processes": [line for line in run(["ps", "-ww", "-eo", "pid,args"]).splitlines() if str(folder) in line],
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line or "/run/netns" in line],
        "groups": [path for root in hierarchies() if (path := root / cgroup_name(folder)).exists()],
        "settings": [Path("/proc/sys", name).read_text() for name in KUBELET_SETTINGS],
        "run": sorted(path.name for path in Path("/run").iterdir()),
        "lib": sorted(path.name for path in Path("/var/lib").iterdir()),
        "folder": folder.exists(),
    }


NETWORK = "ip -o address; ip route; iptables-save"


def test_a_node_goes_without_a_trace_also_after_its_programs_were_killed(cluster):
    """In a network namespace of its own, beside the session's cluster, with a pod running; its harness has been killed as well."""
    if cluster.node is None:
        pytest.skip("With PRISM_TEST_KUBECONFIG no node is started here.")
    name = "traceless"
    folder = running_dir() / name
    before = traces(folder)
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        try:
            inside = ["nsenter", f"--target={holder.pid}", "--net"]
            harness = [*inside, sys.executable, "-m", "cluster.harness", f"--name={name}"]
            run([*inside, "ip", "link", "set", "lo", "up"])
            network = run([*inside, "sh", "-c", NETWORK])
            run([*harness, "up", "--no-images"], cwd=TESTS, timeout=120)
            assert traces(folder)["groups"] and traces(folder)["processes"]
            for program in ("containerd", "kubelet", "etcd"):
                os.kill(Node(name).processes.pid(program), signal.SIGKILL)
            run([*harness, "down"], cwd=TESTS, timeout=60)
            assert run([*inside, "sh", "-c", NETWORK]) == network
        finally:
            Node(name).down()
            shutil.rmtree(Node(name).store, ignore_errors=True)
            holder.kill()
    assert traces(folder) == before
