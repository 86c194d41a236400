"""A control plane for benchmarks: etcd with fsync, API server with an audit log, scheduler, controllers, kwok and KubeRay; no container."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.harness.build import kuberay_crds, program
from cluster.harness.certificates import make_identity
from cluster.harness.commands import wait_until
from cluster.harness.control_plane import ControlPlane
from cluster.harness.locations import running_dir
from cluster.harness.processes import Processes

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "bench"
OPERATOR_NAMESPACE = "prism-system"
ACCOUNT = "prism-operator"
ACCOUNT_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}"
POD_IPS = "127.64.0.1/10"
"""Every pod has an address of its own, all of them on this machine, where the stand-in for the stages' progress listens."""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "Metadata", "users": [ACCOUNT_USER]}, {"level": "None"}],
}


@dataclass(frozen=True)
class AuditedControlPlane(ControlPlane):
    """The test cluster's, which also writes down every request of our operator."""

    @property
    def audit_log(self) -> Path:
        return self.dir / "audit.log"

    def _api_server(self, kubelet: bool, service_accounts: bool) -> list[str | Path]:
        policy = self.dir / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        audit = [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        return [*super()._api_server(kubelet, service_accounts), *audit]


@contextmanager
def control_plane() -> Iterator[AuditedControlPlane]:
    """One that is empty and ready, on free ports of 127.0.0.1; nothing of it stays."""
    running_dir().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="api-benchmark-", dir=running_dir()))
    processes = Processes(folder)
    api, etcd, peer, metrics, health = free_ports(5)
    identity = make_identity(folder / "pki", ["127.0.0.1"])
    plane = AuditedControlPlane(folder, processes, identity, "127.0.0.1", api, etcd, peer, fsync=True)
    try:
        plane.start_api(kubelet=False, service_accounts=True)
        plane.start_controllers()
        _apply(plane, *_objects())
        _define(plane, kuberay_crds(), "ray.io", "rayjobs")
        _define(plane, ROOT / "crds/prismruns.prism.dev.yaml", "prism.dev", "prismruns")
        _start_kwok(plane)
        plane.start_kuberay(metrics, health)
        plane.kubectl("wait", "--for=condition=Ready", "node/kwok", "--timeout=60s")
        yield plane
    finally:
        processes.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def operator_kubeconfig(plane: ControlPlane) -> Path:
    """Of a service account, as in a pod: the API server's fairness applies to it, which it would not to an administrator."""
    token = plane.kubectl("create", "token", ACCOUNT, "--namespace", OPERATOR_NAMESPACE, "--duration=24h").strip()
    config = json.loads(plane.kubeconfig().read_text())
    config["users"][0]["user"]["token"] = token
    file = plane.dir / "operator.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(json.dumps(config))
    return file


def free_ports(num: int) -> list[int]:
    """Of 127.0.0.1; all are held until all are known, so that none comes twice."""
    sockets = [socket.socket() for _ in range(num)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _define(plane: ControlPlane, crds: Path, group: str, plural: str) -> None:
    plane.kubectl("apply", "--server-side", "-f", crds, timeout=120)
    wait_until(lambda: plural in plane.kubectl("api-resources", f"--api-group={group}"), f"{plural} are known", seconds=60)


def _start_kwok(plane: ControlPlane) -> None:
    """With its own stages of nodes and pods: a pod that has a node runs at once, and one that is deleted goes at once."""
    (port,) = free_ports(1)
    config = plane.dir / "kwok.yaml"
    config.touch()
    plane.processes.start(
        "kwok",
        [
            program("kwok"),
            f"--kubeconfig={plane.kubeconfig('kwok')}",
            f"--config={config}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--cidr={POD_IPS}",
            "--node-ip=127.0.0.1",
            f"--server-address=127.0.0.1:{port}",
        ],
    )


def _apply(plane: ControlPlane, *objects: dict[str, object]) -> None:
    file = plane.dir / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    plane.kubectl("apply", "--server-side", "-f", file)


def _objects() -> Iterator[dict[str, object]]:
    """Two namespaces, the operator's account, a volume, and a node that is never full."""
    for namespace in (NAMESPACE, OPERATOR_NAMESPACE):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": OPERATOR_NAMESPACE}}
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": OPERATOR_NAMESPACE}],
    }
    space = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    claim = {"name": "prism-runs", "namespace": NAMESPACE}
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "prism-runs"},
        "spec": {**space, "capacity": {"storage": "1Ti"}, "hostPath": {"path": "/nowhere"}, "claimRef": claim},
    }
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": claim,
        "spec": {**space, "resources": {"requests": {"storage": "1Ti"}}, "volumeName": "prism-runs"},
    }
    plenty = {"cpu": "1M", "memory": "1Ei", "ephemeral-storage": "1Ei", "pods": "1M", "nvidia.com/gpu": "1M"}
    yield {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "kwok", "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"kubernetes.io/hostname": "kwok"}},
        "status": {"allocatable": plenty, "capacity": plenty},
    }
