"""A stage attempt as a RayCluster. It is created once and never written again: queues and KubeRay change it after us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prism_operator.cluster.pods import NODE_PORT, head_pod, worker_pod
from prism_operator.decide import StartAttempt
from prism_operator.names import (
    API_VERSION,
    ATTEMPT_LABEL,
    CONFIG_DIGEST_ANNOTATION,
    FOLLOWERS_ANNOTATION,
    KIND,
    MANAGED_BY,
    RUN_LABEL,
    STAGE_LABEL,
    cluster_name,
)
from prism_operator.plan import RunPlan, StagePlan
from prism_operator.policies.retry import WARM
from prism_operator.settings import Settings
from prism_operator.sizing import object_store_bytes, ray_cpus
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.pod import PodJob
from prism_trainer.contract.report import FailureClass

RAY_API = "ray.io/v1"
PASSED_ON = ("kueue.x-k8s.io/", "volcano.sh/", "yunikorn.apache.org/", "kai.scheduler/", "ray.io/", "scheduling.k8s.io/")
"""Labels and annotations of a PrismRun with these prefixes are for the scheduler, and go to its clusters and pods."""

HEAD_PARAMS = {"no-monitor": "true", "include-dashboard": "false"}
"""Nothing scales, so there is nothing to monitor; and a dashboard that nobody needs is a way in and two hundred megabytes."""


def make_ray_cluster(plan: RunPlan, start: StartAttempt, settings: Settings) -> dict[str, Any]:
    """Named and labelled by run, stage and attempt, owned by the run."""
    job = start.job
    stage = plan.stage(job.stage)
    name = cluster_name(plan.name, job.stage, job.attempt)
    passed = _passed_on(plan.owner.labels) | _queue_labels(plan)
    labels = {**passed, **MANAGED_BY, RUN_LABEL: plan.name, STAGE_LABEL: job.stage, ATTEMPT_LABEL: str(job.attempt)}
    return {
        "apiVersion": RAY_API,
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": plan.owner.namespace,
            "labels": labels,
            "annotations": {
                **_passed_on(plan.owner.annotations),
                "ray.io/disable-provisioned-head-restart": "true",  # a new head knows nothing of the stage: that is a new attempt
                CONFIG_DIGEST_ANNOTATION: job.config_digest,
                **_followers(start),
            },
            "ownerReferences": [_owner(plan)],
        },
        "spec": {
            "rayVersion": settings.ray_version,
            "enableInTreeAutoscaling": False,
            "authOptions": {"mode": "token"},
            "headGroupSpec": {
                "rayStartParams": _ray_params(stage) | HEAD_PARAMS,
                "template": head_pod(plan, stage, make_pod_jobs(plan, start), name, labels, settings),
            },
            "workerGroupSpecs": _workers(plan, stage, labels, settings),
        },
    }


def make_pod_jobs(plan: RunPlan, start: StartAttempt) -> list[PodJob]:
    """What each stage's container is told, each after the one before."""
    jobs = (start.job, *start.followers)
    before = (None, *(job.stage for job in jobs))
    return [_pod_job(plan, job, after, start.warm_retries if after is None else {}) for job, after in zip(jobs, before, strict=False)]


def _pod_job(plan: RunPlan, job: StageJob, after: str | None, restarts: Mapping[FailureClass, int]) -> PodJob:
    stage = plan.stage(job.stage)
    store = plan.storage.object_store
    return PodJob(
        job=job,
        storage_uri=plan.root_uri,
        endpoint=store.endpoint if store else None,
        num_nodes=1 + num_workers(stage),
        gang_seconds=stage.deadlines.start_seconds,
        progress_seconds=stage.deadlines.progress_seconds,
        stop_grace_seconds=stage.deadlines.stop_grace_seconds,
        restarts=dict(restarts) if after is None else {c: n for c in WARM if (n := stage.retries.budget(c))},
        keep_intermediate_when_done=plan.retention.keep_intermediate_when_done,
        after=after,
    )


def _followers(start: StartAttempt) -> dict[str, str]:
    if not start.followers:
        return {}
    followers = [{"stage": job.stage, "attempt": job.attempt, "configDigest": job.config_digest} for job in start.followers]
    return {FOLLOWERS_ANNOTATION: json.dumps(followers, separators=(",", ":"))}


def num_workers(stage: StagePlan) -> int:
    """Ray worker pods beside the head."""
    return stage.resources.nodes - 1 if stage.resources.workers is None else stage.resources.workers


def _workers(plan: RunPlan, stage: StagePlan, labels: dict[str, str], settings: Settings) -> list[dict[str, Any]]:
    num = num_workers(stage)
    if not num:
        return []
    template = worker_pod(plan, stage, labels, settings)
    sizes = {"replicas": num, "minReplicas": num, "maxReplicas": num}
    return [{"groupName": "workers", **sizes, "rayStartParams": _ray_params(stage), "template": template}]


def _ray_params(stage: StagePlan) -> dict[str, str]:
    """Where the stage computes in its own container, Ray is told of no GPUs and keeps its object store small; else it is told all."""
    ports = {"node-manager-port": str(NODE_PORT)}
    if stage.engine == "local":
        return {**ports, "num-gpus": "0", "object-store-memory": str(100 * 2**20)}
    cpus = ray_cpus(stage.resources)
    counted = {"num-cpus": str(cpus)} if cpus else {}
    store = str(object_store_bytes(stage.resources))
    return {**ports, **counted, "num-gpus": str(stage.resources.gpus_per_node), "object-store-memory": store}


def _owner(plan: RunPlan) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": plan.name,
        "uid": plan.owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _passed_on(mapping: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in mapping.items() if key.startswith(PASSED_ON)}


def _queue_labels(plan: RunPlan) -> dict[str, str]:
    if plan.queue is None:
        return {}
    priority = {"kueue.x-k8s.io/priority-class": plan.queue.priority} if plan.queue.priority else {}
    return {"kueue.x-k8s.io/queue-name": plan.queue.name, **priority}
