"""RayClusters and pods as KubeRay 1.6 and a kubelet 1.34 write them, in a line each. Taken from a real node, and cut to what is read."""

from __future__ import annotations

from typing import Any

from builders import at
from prism_operator.timestamps import format_time

CLUSTER = "demo-sft-a1"
DIGEST = "sha256:" + "c" * 64
LABELS = {
    "prism.dev/run": "demo",
    "prism.dev/stage": "sft",
    "prism.dev/attempt": "1",
    "app.kubernetes.io/managed-by": "prism",
}


def ray_cluster(
    *,
    provisioned: float | None = None,
    deleting: float | None = None,
    suspend: bool = False,
    held: bool = False,
    released: float = -300,
    trouble: str = "",
    workers: int = 0,
    digest: str = DIGEST,
    uid: str = "cluster-1",
    attempt: int = 1,
    version: int = 100,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Times are seconds from NOW; created 300 s before. `held`: KubeRay has it suspended."""
    metadata: dict[str, Any] = {
        "name": f"{CLUSTER.rpartition('-a')[0]}-a{attempt}",
        "namespace": "team",
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": time(-300),
        "labels": {**LABELS, "prism.dev/attempt": str(attempt)},
        "annotations": {"prism.dev/config-digest": digest, **(annotations or {})},
        "ownerReferences": [{"kind": "PrismRun", "name": "demo", "uid": "run-1", "controller": True}],
    }
    if deleting is not None:
        metadata |= {"deletionTimestamp": time(deleting), "finalizers": ["foregroundDeletion"]}
    first = "True" if provisioned is not None else "False"
    conditions = [
        {
            "type": "RayClusterProvisioned",
            "status": first,
            "lastTransitionTime": time(provisioned or 0),
            "reason": "AllPodRunningAndReadyFirstTime",
        },
        {"type": "RayClusterSuspended", "status": str(held), "lastTransitionTime": time(released), "reason": "RayClusterSuspended"},
        {"type": "RayClusterSuspending", "status": "False", "lastTransitionTime": time(-300), "reason": "RayClusterSuspending"},
    ]
    if trouble:
        conditions.insert(
            0, {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": f"FailedCreateHeadPod\n{trouble}"}
        )
    groups = [{"groupName": "workers", "replicas": workers, "numOfHosts": 1, "template": {}}] if workers else []
    spec = {"headGroupSpec": {"template": {}}, "workerGroupSpecs": groups, **({"suspend": True} if suspend else {})}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": spec, "status": {"conditions": conditions}}


def head(**given: Any) -> dict[str, Any]:
    """Running, with Ray and the stage."""
    containers = {"ray-head": running(), "stage-sft": running()}
    return pod(**{"name": f"{CLUSTER}-head-x7k2p", "node_type": "head", "containers": containers, **given})


def worker(**given: Any) -> dict[str, Any]:
    return pod(**{"name": f"{CLUSTER}-workers-worker-9qz4m", "node_type": "worker", "containers": {"ray-worker": running()}, **given})


def pod(
    *,
    name: str,
    node_type: str,
    containers: dict[str, Any],
    phase: str = "Running",
    ready: bool = True,
    created: float = -290,
    deleting: float | None = None,
    grace: int = 150,
    conditions: tuple[dict[str, Any], ...] = (),
    reason: str = "",
    message: str = "",
    node: str = "node-1",
    owner: str = "cluster-1",
    version: int = 100,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """`deleting`: when it was told to go; the API server writes down when it must be gone."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "team",
        "uid": f"{name}-{owner}",
        "resourceVersion": str(version),
        "creationTimestamp": time(created),
        "labels": {**LABELS, "ray.io/cluster": CLUSTER, "ray.io/node-type": node_type, **(labels or {})},
        "ownerReferences": [{"kind": "RayCluster", "name": CLUSTER, "uid": owner, "controller": True}],
    }
    if deleting is not None:
        metadata |= {"deletionTimestamp": time(deleting + grace), "deletionGracePeriodSeconds": grace}
    status: dict[str, Any] = {
        "phase": phase,
        "startTime": time(created + 1),
        "podIP": "10.0.0.7",
        "conditions": [
            *conditions,
            {"type": "Ready", "status": str(ready)},
            *([{"type": "PodScheduled", "status": "True"}] if node else []),
        ],
        "containerStatuses": [{"name": each, "state": state, "imageID": "img@sha256:1"} for each, state in containers.items()],
    }
    status |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}


def running() -> dict[str, Any]:
    return {"running": {"startedAt": time(-280)}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(code: int, message: str = "", reason: str = "", finished: float = -10) -> dict[str, Any]:
    named = reason or ("Completed" if code == 0 else "Error")
    state = {"exitCode": code, "reason": named, "startedAt": time(-280), "finishedAt": time(finished), "containerID": "containerd://1"}
    return {"terminated": {**state, **({"message": message} if message else {})}}


def unschedulable(message: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def disrupted(reason: str, message: str) -> dict[str, Any]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


def time(seconds: float) -> str:
    return format_time(at(seconds))
