"""RayClusters and pods, reduced to what the rules need: what the operator keeps of each object it watches. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prism_operator.names import ATTEMPT_LABEL, CONFIG_DIGEST_ANNOTATION, FOLLOWERS_ANNOTATION, RUN_LABEL, STAGE_LABEL, cluster_name
from prism_operator.timestamps import parse_time

MAX_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A RayCluster."""

    name: str
    uid: str
    owner_uid: str
    run: str
    stage: str
    attempt: int
    config_digest: str | None
    created_at: datetime | None
    deleting: datetime | None
    suspended: bool
    """By its spec, or by KubeRay that has not let it go on yet."""
    provisioned_at: datetime | None
    """When all its pods were ready for the first time; it latches."""
    released_at: datetime | None
    """When it was last let go on, by a queue or by whoever suspended it."""
    trouble: str
    """Why KubeRay cannot create its pods."""
    num_workers: int
    followers: tuple[tuple[str, int, str], ...] = ()
    """Stage, attempt and configuration digest of those that go on in the same pods, in order."""
    lost: bool = False
    """It is gone, and some of its pods are not."""


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A container of a pod."""

    state: str
    """waiting, running or terminated."""
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    finished_at: datetime | None = None
    image: str = ""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod of a RayCluster."""

    name: str
    uid: str
    owner_uid: str
    """Of its RayCluster, whose name another one may have borne."""
    cluster: str
    stage: str
    attempt: int
    is_head: bool
    phase: str
    created_at: datetime | None
    started_at: datetime | None
    deleting: datetime | None
    """Since when; the API server writes down until when."""
    unschedulable: str
    disrupted: str
    """Why somebody took it away: preemption, eviction, a node that is gone."""
    ended: str
    """Reason and message of a pod that failed as a whole."""
    ready: bool
    node: str
    address: str
    containers: Mapping[str, ContainerFacts]
    gone: bool = False
    """Of it there are only its last words."""


def cluster_facts(raw: Mapping[str, Any]) -> ClusterFacts | None:
    """None for a RayCluster that is not one of ours."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    attempt = labels.get(ATTEMPT_LABEL, "")
    run, stage = labels.get(RUN_LABEL), labels.get(STAGE_LABEL)
    if not (attempt.isdecimal() and run and stage and metadata["name"] == cluster_name(run, stage, int(attempt))):
        return None
    provisioned = _condition(status, "RayClusterProvisioned")
    failure = _condition(status, "ReplicaFailure")
    held = _condition(status, "RayClusterSuspended")
    groups = (raw.get("spec") or {}).get("workerGroupSpecs") or []
    return ClusterFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=_owner_uid(metadata),
        run=run,
        stage=stage,
        attempt=int(attempt),
        config_digest=(metadata.get("annotations") or {}).get(CONFIG_DIGEST_ANNOTATION),
        created_at=parse_time(metadata.get("creationTimestamp")),
        deleting=parse_time(metadata.get("deletionTimestamp")),
        suspended=bool((raw.get("spec") or {}).get("suspend")) or _condition(status, "RayClusterSuspended").get("status") == "True",
        provisioned_at=parse_time(provisioned.get("lastTransitionTime")) if provisioned.get("status") == "True" else None,
        released_at=parse_time(held.get("lastTransitionTime")) if held.get("status") == "False" else None,
        trouble=_trouble(metadata["name"], str(failure.get("message", ""))) if failure.get("status") == "True" else "",
        followers=_followers((metadata.get("annotations") or {}).get(FOLLOWERS_ANNOTATION)),
        num_workers=sum(int(group.get("replicas") or 0) * int(group.get("numOfHosts") or 1) for group in groups),
    )


def pod_facts(raw: Mapping[str, Any]) -> PodFacts | None:
    """None for a pod that belongs to no RayCluster."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    cluster = labels.get("ray.io/cluster")
    if not cluster:
        return None
    scheduled = _condition(status, "PodScheduled")
    disrupted = _condition(status, "DisruptionTarget")
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=_owner_uid(metadata),
        cluster=cluster,
        stage=labels.get(STAGE_LABEL, ""),
        attempt=int(number) if (number := labels.get(ATTEMPT_LABEL, "")).isdecimal() else 0,
        is_head=labels.get("ray.io/node-type") == "head",
        phase=status.get("phase", "Pending"),
        created_at=parse_time(metadata.get("creationTimestamp")),
        started_at=parse_time(status.get("startTime")),
        deleting=_asked_to_go(metadata),
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        disrupted=f"{disrupted.get('reason', '')}: {disrupted.get('message', '')}" if disrupted.get("status") == "True" else "",
        ended=": ".join(part for part in (status.get("reason"), status.get("message")) if part) if status.get("reason") else "",
        ready=_condition(status, "Ready").get("status") == "True",
        node=(raw.get("spec") or {}).get("nodeName", ""),
        address=status.get("podIP", ""),
        containers={
            each["name"]: _container(each)
            for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
        },
    )


def _followers(annotation: str | None) -> tuple[tuple[str, int, str], ...]:
    try:
        listed = json.loads(annotation or "[]")
        return tuple((str(each["stage"]), int(each["attempt"]), str(each["configDigest"])) for each in listed)
    except (KeyError, TypeError, ValueError):
        return ()


def _container(status: Mapping[str, Any]) -> ContainerFacts:
    state = status.get("state") or {}
    name = next(iter(state), "waiting")
    details = state.get(name) or {}
    return ContainerFacts(
        state=name,
        reason=details.get("reason", ""),
        message=(details.get("message") or "")[:MAX_MESSAGE],
        exit_code=details.get("exitCode"),
        finished_at=parse_time(details.get("finishedAt")),
        image=status.get("imageID") or status.get("image", ""),
    )


def _owner_uid(metadata: Mapping[str, Any]) -> str:
    owner: Mapping[str, Any] = next((o for o in metadata.get("ownerReferences") or [] if o.get("controller")), {})
    return str(owner.get("uid", ""))


def _asked_to_go(metadata: Mapping[str, Any]) -> datetime | None:
    until = parse_time(metadata.get("deletionTimestamp"))
    return until - timedelta(seconds=int(metadata.get("deletionGracePeriodSeconds") or 0)) if until else None


def _trouble(cluster: str, message: str) -> str:
    """KubeRay makes up a new pod name for each try: without it the same trouble is the same sentence, and no write."""
    plain = re.sub(rf"({re.escape(cluster)}-[a-z0-9-]*)-[a-z0-9]{{5}}\b", r"\1", message)
    return ": ".join(line.strip() for line in plain.splitlines() if line.strip())[:MAX_MESSAGE]


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return next((condition for condition in status.get("conditions") or () if condition.get("type") == type_), {})
