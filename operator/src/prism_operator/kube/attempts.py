"""What a cluster tells of its attempt: alive, waiting, ended and how. Pure: facts in, records out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from prism_operator.api import AttemptStatus, PrismRunStatus, StageStatus
from prism_operator.children import AttemptRecord, Children, CommittedCheckpoint, Outcome, Pending, StopReason, StopRequest, Verdict, Wishes
from prism_operator.kube.facts import ClusterFacts, ContainerFacts, PodFacts
from prism_operator.names import HEAD_CONTAINER, WORKER_CONTAINER, stage_container
from prism_operator.timestamps import format_exact, format_time, parse_time
from prism_trainer.contract.report import FailureClass, Progress, StageResult

SIGNAL_BASE = 128
"""A container that a signal ended exits with this and the signal's number."""


def children_of(
    previous: PrismRunStatus | None,
    clusters: Iterable[ClusterFacts],
    pods: Iterable[PodFacts],
    progress: Mapping[str, Progress],
    wishes: Wishes,
    now: datetime,
) -> Children:
    """What is there, and what the status remembers of what is not there any more. `progress` by cluster."""
    remembered = {(stage.name, a.number): (stage, a) for stage in (previous.stages if previous else ()) for a in stage.attempts}
    grouped: dict[str, list[PodFacts]] = {}
    for pod in pods:
        grouped.setdefault(pod.cluster, []).append(pod)
    records = {}
    for cluster in [stage for shared in clusters for stage in _each_stage(shared, grouped.get(shared.name, []))]:
        stage, attempt = remembered.get((cluster.stage, cluster.attempt), (None, None))
        record = record_of(cluster, grouped.get(cluster.name, []), attempt, now)
        told = progress.get(cluster.name)
        if told is None or told.stage != cluster.stage:
            told = _remembered_progress(stage, record)
        records[record.stage, record.number] = replace(record, progress=told if record.alive else None)
    for key, (stage, attempt) in remembered.items():
        if key not in records:
            records[key] = _without_cluster(stage, attempt, now)
    return Children(
        wishes=wishes,
        attempts=tuple(records.values()),
        checkpoints=(*_committed(previous), *(c for record in records.values() if (c := _commits(record)))),
        forgotten={stage.name: {FailureClass(c): n for c, n in stage.forgotten.items()} for stage in (previous.stages if previous else ())},
    )


def _each_stage(cluster: ClusterFacts, pods: list[PodFacts]) -> Iterator[ClusterFacts]:
    """A cluster that stages share, once for each that has begun: one begins when the one before has succeeded."""
    yield cluster
    head = next((pod for pod in pods if pod.is_head), None)
    stage, created_at = cluster.stage, cluster.created_at
    for follower, attempt, digest in cluster.followers:
        before = head.containers.get(stage_container(stage)) if head else None
        result = _result(before) if before and before.state == "terminated" else None
        if before is None or result is None or result.outcome != "Succeeded":
            return
        stage, created_at = follower, before.finished_at or created_at
        yield replace(cluster, stage=follower, attempt=attempt, config_digest=digest, created_at=created_at)


def record_of(cluster: ClusterFacts, pods: list[PodFacts], before: AttemptStatus | None, now: datetime) -> AttemptRecord:
    """One attempt, whose RayCluster is there."""
    head = max((pod for pod in pods if pod.is_head), key=lambda pod: pod.created_at or now, default=None)
    stage = head.containers.get(stage_container(cluster.stage)) if head else None
    loss = _loss(cluster, head, stage, pods)
    ended = stage is not None and stage.state == "terminated"
    runs = stage is not None and stage.state == "running"
    alive = (not ended and not cluster.deleting and (loss is None or runs)) or (runs and bool(cluster.deleting))
    result = _result(stage) if ended and stage else None
    record = AttemptRecord(
        stage=cluster.stage,
        number=cluster.attempt,
        alive=alive,
        remains=True,
        config_digest=cluster.config_digest,
        resume_from=(result.resume_from if result else None) or (before.resume_from if before else None),
        started_at=cluster.created_at,
        ended_at=None if alive else _ended_at(stage, before, now),
        exit_code=_exit_code(stage) if ended and stage else None,
        stop=_stop(cluster, before),
        result=result,
        log_tail=stage.message[-1500:].strip() if ended and stage and result is None else "",
        restarts=dict(Counter(restart.failure_class for restart in result.restarts)) if result else _restarts(before),
        loss=_ended_badly(stage) if ended and stage and result is None else loss,
        deleting=cluster.deleting,
        leaving=cluster.deleting or (head.deleting if head else None),
        holding_since=max(head.started_at, cluster.created_at) if head and head.started_at and cluster.created_at else None,
        cluster=cluster.name,
        images={cluster.stage: stage.image} if stage and stage.image else {},
        seconds_before=before.gpu_seconds if before else 0.0,
    )
    settled = _settled(before)
    if settled is not None:
        return replace(record, alive=False, settled=settled, ended_at=parse_time(before.finished_at) if before else None)
    return replace(record, pending=_pending(cluster, head, stage, pods)) if alive and loss is None else record


def _loss(cluster: ClusterFacts, head: PodFacts | None, stage: ContainerFacts | None, pods: list[PodFacts]) -> Verdict | None:
    """What is gone and does not come back."""
    if stage is not None and stage.state == "terminated":
        return None
    if head is None:
        if cluster.deleting:
            return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, f"RayCluster {cluster.name} was deleted by somebody else")
        gone = f"the head pod of RayCluster {cluster.name} is gone"
        return Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, gone) if cluster.provisioned_at else None
    if head.phase == "Failed":
        return _pod_failed(head)
    ray = head.containers.get(HEAD_CONTAINER)
    if ray is not None and ray.state == "terminated" and not head.deleting:
        return Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, f"Ray's head in pod {head.name} ended ({_how(ray)})")
    return _worker_loss(cluster, [pod for pod in pods if not pod.is_head])


def _worker_loss(cluster: ClusterFacts, workers: list[PodFacts]) -> Verdict | None:
    """KubeRay replaces a lost worker; the ranks that ran on it are lost all the same."""
    since = cluster.provisioned_at
    if since is None or cluster.deleting:
        return None
    old = [pod for pod in workers if pod.created_at is None or pod.created_at <= since]
    sound = [pod for pod in old if pod.phase == "Running" and not pod.deleting and not _has_ended(pod, WORKER_CONTAINER)]
    if len(sound) >= cluster.num_workers:
        return None
    why = next((pod.disrupted or pod.ended for pod in old if pod.disrupted or pod.ended), "")
    message = f"{cluster.num_workers - len(sound)} of {cluster.num_workers} workers are gone{f' ({why})' if why else ''}"
    return Verdict(Outcome.FAILED, FailureClass.NODE_LOST, message)


def _pod_failed(head: PodFacts) -> Verdict:
    if head.disrupted:
        return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, f"pod {head.name} was taken away ({head.disrupted})")
    return Verdict(Outcome.FAILED, FailureClass.NODE_LOST, f"pod {head.name} failed ({head.ended or 'no reason given'})")


def _ended_badly(stage: ContainerFacts) -> Verdict | None:
    """A container without last words, where Kubernetes knows more than the exit code says."""
    if stage.reason == "OOMKilled":
        return Verdict(Outcome.FAILED, FailureClass.OUT_OF_MEMORY, "its container was killed because it used more memory than its limit")
    return None


def _pending(cluster: ClusterFacts, head: PodFacts | None, stage: ContainerFacts | None, pods: list[PodFacts]) -> Pending | None:
    """In the words of whoever holds it up; none once the stage and its gang are there."""
    if cluster.suspended:
        return Pending("WaitingForQuota", f"RayCluster {cluster.name} is suspended until its queue admits it.", queued=True)
    blocked = next((found for pod in pods if (found := _blocked(pod))), None)
    if blocked is not None and cluster.provisioned_at is None:
        return blocked
    if cluster.trouble and (head is None or cluster.provisioned_at is None):
        reason = "QuotaExceeded" if "exceeded quota" in cluster.trouble else "PodsRefused"
        return Pending(reason, f"KubeRay cannot create the pods of {cluster.name}: {cluster.trouble}")
    if head is None:
        return Pending("Provisioning", f"RayCluster {cluster.name} has no head pod yet.")
    if stage is None or stage.state == "waiting":
        volumes = " If it stays so, look whether the volume claim and the Secrets it mounts exist." if head.node else ""
        return Pending("Provisioning", f"Pod {head.name} is being started.{volumes}")
    if cluster.provisioned_at is None and cluster.num_workers:
        ready = sum(pod.ready for pod in pods if not pod.is_head)
        if ready < cluster.num_workers:
            return Pending("Provisioning", f"{ready} of {cluster.num_workers} workers are ready.")
    return None


BLOCKING = {
    "ErrImagePull": "ImagePullFailed",
    "ImagePullBackOff": "ImagePullFailed",
    "InvalidImageName": "ImagePullFailed",
    "ErrImageNeverPull": "ImagePullFailed",
    "CreateContainerConfigError": "ConfigMissing",
    "CreateContainerError": "ContainerRefused",
    "RunContainerError": "ContainerRefused",
}


def _blocked(pod: PodFacts) -> Pending | None:
    if pod.unschedulable:
        return Pending("Unschedulable", f"Pod {pod.name}: {pod.unschedulable}")
    for name, container in pod.containers.items():
        if container.state == "waiting" and container.reason in BLOCKING:
            return Pending(BLOCKING[container.reason], f"Container {name} of pod {pod.name}: {container.reason}: {container.message}")
    return None


def _without_cluster(stage: StageStatus, attempt: AttemptStatus, now: datetime) -> AttemptRecord:
    """An attempt of which only the status tells. One that was last seen alive went with its cluster."""
    record = AttemptRecord(
        stage=stage.name,
        number=attempt.number,
        config_digest=attempt.config_digest,
        resume_from=attempt.resume_from,
        started_at=parse_time(attempt.started_at),
        ended_at=parse_time(attempt.finished_at) or now,
        settled=_settled(attempt),
        restarts=_restarts(attempt),
        cluster=attempt.cluster or "",
        seconds_before=attempt.gpu_seconds,
    )
    if record.settled is not None:
        return record
    if attempt.stop_reason is not None:
        return replace(record, stop=StopRequest(reason=StopReason(attempt.stop_reason), requested_at=format_exact(now), killed_at=None))
    gone = f"RayCluster {attempt.cluster} is gone, and the operator did not delete it"
    return replace(record, loss=Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, gone))


def _settled(attempt: AttemptStatus | None) -> Verdict | None:
    if attempt is None or attempt.outcome == Outcome.RUNNING:
        return None
    failure_class = FailureClass(attempt.failure_class) if attempt.failure_class else None
    return Verdict(Outcome(attempt.outcome), failure_class, attempt.message)


def _stop(cluster: ClusterFacts, before: AttemptStatus | None) -> StopRequest | None:
    """We said why before we deleted it; a deletion nobody of us wrote down was somebody else's."""
    if cluster.deleting is None or before is None or before.stop_reason is None:
        return None
    return StopRequest(reason=StopReason(before.stop_reason), requested_at=format_exact(cluster.deleting), killed_at=None)


def _result(stage: ContainerFacts) -> StageResult | None:
    try:
        return StageResult.model_validate(json.loads(stage.message))
    except (ValueError, ValidationError):
        return None


def _exit_code(stage: ContainerFacts) -> int | None:
    """Negative for a signal, as processes have it."""
    code = stage.exit_code
    return SIGNAL_BASE - code if code is not None and SIGNAL_BASE < code < SIGNAL_BASE + 65 else code


def _ended_at(stage: ContainerFacts | None, before: AttemptStatus | None, now: datetime) -> datetime:
    return (stage.finished_at if stage else None) or parse_time(before.finished_at if before else None) or now


def _restarts(attempt: AttemptStatus | None) -> dict[FailureClass, int]:
    return {FailureClass(name): num for name, num in attempt.restarts.items()} if attempt else {}


def _remembered_progress(stage: StageStatus | None, record: AttemptRecord) -> Progress | None:
    """Until the pod is asked again, what was last written down; without times, so that it is no heartbeat."""
    last = stage.attempts[-1].number if stage and stage.attempts else None
    if stage is None or last != record.number or not stage.total_steps:
        return None
    return Progress(
        stage=stage.name,
        attempt=record.number,
        phase=stage.phase,
        step=stage.step,
        total_steps=stage.total_steps,
        eta_seconds=stage.eta_seconds,
        metrics=stage.metrics,
        resume_from=record.resume_from,
        advanced_at="",
        updated_at="",
    )


def _committed(previous: PrismRunStatus | None) -> list[CommittedCheckpoint]:
    """The final checkpoints the status remembers."""
    stages = [stage for stage in (previous.stages if previous else ()) if stage.checkpoint and stage.checkpoint.attempt]
    return [
        CommittedCheckpoint(
            stage=stage.name,
            attempt=checkpoint.attempt,
            uri=checkpoint.uri,
            digest=checkpoint.digest or "",
            step=checkpoint.step,
            final=True,
            config_digest=checkpoint.config_digest or "",
            created_at=checkpoint.created_at or "",
            metrics=stage.metrics,
        )
        for stage in stages
        if (checkpoint := stage.checkpoint)
    ]


def _commits(record: AttemptRecord) -> CommittedCheckpoint | None:
    """The final checkpoint that an attempt's last words tell of."""
    result = record.result
    if result is None or result.outcome != "Succeeded" or result.checkpoint is None or not result.checkpoint.digest:
        return None
    return CommittedCheckpoint(
        stage=record.stage,
        attempt=record.number,
        uri=result.checkpoint.uri,
        digest=result.checkpoint.digest,
        step=result.checkpoint.step,
        final=True,
        config_digest=record.config_digest or "",
        created_at=format_time(record.ended_at) if record.ended_at else "",
        metrics=result.metrics,
        versions=result.versions,
        data=result.data,
    )


def _has_ended(pod: PodFacts, container: str) -> bool:
    found = pod.containers.get(container)
    return found is not None and found.state == "terminated"


def _how(container: ContainerFacts) -> str:
    return container.reason or f"exit code {container.exit_code}"
