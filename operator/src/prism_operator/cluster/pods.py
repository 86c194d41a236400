"""The pods of an attempt: a head with Ray and the stage's containers, and workers. They pass Pod Security `restricted`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prism_operator.cluster.patches import patched
from prism_operator.cluster.storage import Mounts, head_mounts, worker_mounts
from prism_operator.names import HEAD_CONTAINER, WORKER_CONTAINER, job_annotation, stage_container
from prism_operator.plan import RunPlan, StagePlan
from prism_operator.settings import Settings
from prism_operator.sizing import cpus_of, memory_of
from prism_trainer.contract.pod import JOBS_DIR, PROGRESS_PORT, RAY_ADDRESS, PodJob

USER = 1000
EXIT_SECONDS = 30
"""Beyond the grace in which a stage saves: for its last words and Ray's end."""
GPU = "nvidia.com/gpu"
GCS_PORT = 6379
NODE_PORT = 8076
"""Of the raylet; Ray chooses one itself unless it is told."""
GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"

AWAIT_STAGES = "while grep -qs 'prism_trainer[.]pod' /proc/[0-9]*/cmdline; do sleep 0.2; done"
"""Ray stays until the stages have saved: their workers are Ray's. The pod's grace bounds it."""

RAY_ALONE = {"requests": {"cpu": "100m", "memory": "768Mi"}, "limits": {"memory": "3Gi"}}
"""Where the stage computes in its own container, Ray only keeps the gang together."""
NCCL_ENV = {"NCCL_DEBUG": "WARN", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
"""NCCL's own warnings are in the log, and a rank that waits in vain is ended by torch. Which network it takes is left to NCCL."""
NO_GPUS = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
"""A base image that says `all` would show a container that asks for no GPU every GPU of the node."""
DRIVER_ALONE = {"requests": {"cpu": "500m", "memory": "2Gi"}}
"""Where Ray's workers compute, the stage only drives them."""


def head_pod(plan: RunPlan, stage: StagePlan, jobs: Sequence[PodJob], cluster: str, labels: dict[str, str], settings: Settings) -> Any:
    """Ray first, because KubeRay takes the first container for Ray's; then one container a stage."""
    mounts = head_mounts(plan, tuple(job.job.stage for job in jobs), stage.resources)
    computes_in_ray = stage.engine == "verl"
    work = _work(stage)
    ray = {
        **_ray_container(HEAD_CONTAINER, stage, mounts, settings),
        **_probes(GCS_PORT),
        "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", AWAIT_STAGES]}}},
    }
    stages = [_stage(plan, stage, job, mounts, cluster, DRIVER_ALONE if computes_in_ray else work, settings) for job in jobs]
    for waiting in stages[1:]:
        waiting["resources"] = {**waiting["resources"], "requests": {"cpu": "10m", "memory": "64Mi"}}
    annotations = {job_annotation(job.job.stage): json.dumps(job.to_dict(), separators=(",", ":")) for job in jobs}
    return _pod([ray, *stages], mounts, stage, labels, settings, annotations)


def worker_pod(plan: RunPlan, stage: StagePlan, labels: dict[str, str], settings: Settings) -> Any:
    """One more node of the gang."""
    mounts = worker_mounts(plan, stage.resources)
    container = {**_ray_container(WORKER_CONTAINER, stage, mounts, settings), **_probes(NODE_PORT)}
    return _pod([container], mounts, stage, labels, settings, {})


def _pod(
    containers: list[Any], mounts: Mounts, stage: StagePlan, labels: dict[str, str], settings: Settings, annotations: dict[str, str]
) -> dict[str, Any]:
    gpus = stage.resources.gpus_per_node
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # the raylet looks for the pid of the stage that joined it
        "terminationGracePeriodSeconds": stage.deadlines.stop_grace_seconds + EXIT_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": mounts.volumes,
    }
    if gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if stage.resources.gpu_type:
        spec["nodeSelector"] = {GPU_PRODUCT_LABEL: stage.resources.gpu_type}
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return patched({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}, stage.pod_template)


def _stage(
    plan: RunPlan, stage: StagePlan, job: PodJob, mounts: Mounts, cluster: str, resources: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    own = plan.stage(job.job.stage)
    token = {"secretKeyRef": {"name": cluster, "key": "auth_token"}}  # KubeRay makes a Secret of the cluster's name
    env = [
        *mounts.env,
        {"name": "RAY_ADDRESS", "value": RAY_ADDRESS},
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": token},
        {"name": "PRISM_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "PRISM_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "PRISM_ATTEMPT", "value": str(job.job.attempt)},
        {"name": "PRISM_IMAGE", "value": own.image or settings.image_of(own.environment)},
        *([NO_GPUS] if own.engine == "verl" else []),
    ]
    return {
        **_container(stage_container(job.job.stage), stage, mounts.stage, settings),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "command": ["python", "-m", "prism_trainer.pod", f"{JOBS_DIR}/{job.job.stage}.json"],
        "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}] if job.after is None else [],
        "env": _with_own(env, own),
        "resources": resources,
    }


def _ray_container(name: str, stage: StagePlan, mounts: Mounts, settings: Settings) -> dict[str, Any]:
    """Where the stage computes in Ray, this is where the GPUs and the network cards are."""
    container = _container(name, stage, mounts.ray, settings)
    computes = stage.engine == "verl"
    if computes and stage.resources.rdma:
        container["securityContext"]["capabilities"]["add"] = ["IPC_LOCK"]
    return {**container, "env": _with_own(mounts.env, stage), "resources": _work(stage) if computes else RAY_ALONE}


def _container(name: str, stage: StagePlan, mounts: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    return {
        "name": name,
        "image": stage.image or settings.image_of(stage.environment),
        "imagePullPolicy": settings.image_pull_policy,
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _probes(port: int) -> dict[str, Any]:
    """KubeRay asks Ray's dashboard agent, which a plain `ray` lacks: the pod is never ready, and is killed after ten minutes."""
    asked = {"tcpSocket": {"port": port}, "periodSeconds": 5, "timeoutSeconds": 5}
    return {
        "readinessProbe": {**asked, "failureThreshold": 3},
        "livenessProbe": {**asked, "initialDelaySeconds": 60, "failureThreshold": 24},
    }


def _with_own(env: list[dict[str, Any]], stage: StagePlan) -> list[dict[str, Any]]:
    """What the user gives a variable of ours wins."""
    defaults = NCCL_ENV if stage.engine == "verl" and stage.resources.gpus_per_node else {}
    given = [{"name": name, "value": value} for name, value in (*defaults.items(), *stage.env)]
    return list({variable["name"]: variable for variable in (*env, *given)}.values())


def _work(stage: StagePlan) -> dict[str, Any]:
    """What the computing container asks for. Memory is asked for as it is limited, so that nobody else is given it."""
    resources = stage.resources
    cpus, memory = (cpus_of(resources), memory_of(resources)) if stage.engine == "verl" else (resources.cpus, resources.memory)
    requests = {"cpu": str(cpus) if cpus else "500m", "memory": memory or "1Gi"}
    limits = {"memory": resources.memory} if resources.memory else {}
    if resources.gpus_per_node:
        limits[GPU] = str(resources.gpus_per_node)
    limits |= {name: str(count) for name, count in resources.rdma.items()}
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}
