"""Where a stage's container finds its storage, its scratch space and its tokens: volumes, mounts and variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prism_operator.api import Resources, SecretRef
from prism_operator.names import job_annotation
from prism_operator.plan import RunPlan
from prism_operator.sizing import shared_memory_of
from prism_trainer.contract.configs import JUDGE_KEY
from prism_trainer.contract.pod import COPIES, JOBS_DIR, STORAGE_DIR, WORK_DIR

CREDENTIALS_DIR = "/prism/secrets/object-store"
CREDENTIALS_FILE = "credentials"


@dataclass(frozen=True)
class Mounts:
    """A pod's volumes, and what of them each kind of container sees."""

    volumes: list[dict[str, Any]]
    ray: list[dict[str, Any]]
    stage: list[dict[str, Any]]
    env: list[dict[str, Any]]
    """Of the containers that read and write the storage."""


def head_mounts(plan: RunPlan, stages: tuple[str, ...], resources: Resources) -> Mounts:
    """Ray and the stage share Ray's sockets and the shared memory; only the stage's container sees its job."""
    jobs = [{"path": f"{stage}.json", "fieldRef": {"fieldPath": f"metadata.annotations['{job_annotation(stage)}']"}} for stage in stages]
    base = worker_mounts(plan, resources)
    return Mounts(
        volumes=[*base.volumes, {"name": "jobs", "downwardAPI": {"items": jobs}}],
        ray=base.ray,
        stage=[*base.ray, {"name": "jobs", "mountPath": JOBS_DIR, "readOnly": True}],
        env=base.env,
    )


def worker_mounts(plan: RunPlan, resources: Resources) -> Mounts:
    """Ray's workers read and write the storage as well."""
    volumes: list[dict[str, Any]] = [
        {"name": "ray-tmp", "emptyDir": {}},
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory_of(resources)}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "work", "emptyDir": {}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "ray-tmp", "mountPath": "/tmp/ray"},
        {"name": "dshm", "mountPath": "/dev/shm"},
        {"name": "work", "mountPath": WORK_DIR},
    ]
    env = [*_tokens(plan), {"name": "HOME", "value": "/tmp"}, {"name": "HF_HOME", "value": f"{_copies_dir(plan, resources)}/huggingface"}]
    if plan.storage.pvc is not None:
        claim = plan.storage.pvc
        volumes.append({"name": "storage", "persistentVolumeClaim": {"claimName": claim.claim_name}})
        sub_path = {"subPath": claim.sub_path} if claim.sub_path else {}
        mounts.append({"name": "storage", "mountPath": STORAGE_DIR, **sub_path})
    credentials = object_store_credentials(plan)
    if credentials is not None:
        item = {"key": credentials.key, "path": CREDENTIALS_FILE}
        volumes.append({"name": "object-store", "secret": {"secretName": credentials.name, "items": [item]}})
        mounts.append({"name": "object-store", "mountPath": CREDENTIALS_DIR, "readOnly": True})
        env.append({"name": "AWS_SHARED_CREDENTIALS_FILE", "value": f"{CREDENTIALS_DIR}/{CREDENTIALS_FILE}"})
    return Mounts(volumes, mounts, mounts, env)


def _copies_dir(plan: RunPlan, resources: Resources) -> str:
    """What is fetched from the hub is fetched once, where every pod sees it."""
    return WORK_DIR if resources.nodes == 1 else f"{plan.root_uri}/{COPIES}"


def object_store_credentials(plan: RunPlan) -> SecretRef | None:
    """Of the storage itself, else of the run's secrets: data may lie in a bucket while checkpoints do not."""
    store = plan.storage.object_store
    return (store.credentials if store else None) or plan.secrets.object_store


def _tokens(plan: RunPlan) -> list[dict[str, Any]]:
    given = (("HF_TOKEN", plan.secrets.hugging_face), ("WANDB_API_KEY", plan.secrets.wandb), (JUDGE_KEY, plan.secrets.judge))
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}} for name, ref in given if ref]
