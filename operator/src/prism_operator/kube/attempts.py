"""What a cluster tells of its attempt: alive, waiting, ended and how. Pure: facts in, records out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from prism_operator.api import AttemptStatus, PrismRunStatus, StageStatus
from prism_operator.children import AttemptRecord, Children, CommittedCheckpoint, Outcome, StopRequest, Wishes
from prism_operator.kube.facts import ClusterFacts, ContainerFacts, PodFacts
from prism_operator.kube.remembered import (
    committed,
    forgotten,
    remembered_progress,
    remembered_stop,
    restarts_of,
    settled_of,
    without_cluster,
)
from prism_operator.kube.troubles import explain_end, find_cause, find_loss, find_pending
from prism_operator.names import stage_container
from prism_operator.timestamps import format_time, parse_time
from prism_trainer.contract.report import Progress, StageResult

Remembered = dict[tuple[str, int], tuple[StageStatus, AttemptStatus]]
"""By stage and number."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
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
    remembered: Remembered = {(stage.name, a.number): (stage, a) for stage in (previous.stages if previous else ()) for a in stage.attempts}
    grouped: dict[str, list[PodFacts]] = {}
    for pod in pods:
        grouped.setdefault(pod.owner_uid, []).append(pod)
    owned = [(cluster, grouped.pop(cluster.uid, [])) for cluster in clusters]
    there = {cluster.name: cluster for cluster, _ in owned}
    orphaned = [(_lost_cluster(left, remembered), left) for left in grouped.values() if _is_ours(left, wishes)]
    records = {}
    for cluster, own in [(stage, left) for whole, left in (*orphaned, *owned) for stage in _each_stage(whole, left)]:
        stage, attempt = remembered.get((cluster.stage, cluster.attempt), (None, None))
        record = record_of(cluster, own, attempt, now)
        if cluster.lost:
            record = replace(record, deleting=_all_leaving(own), remains=any(not pod.gone for pod in own))
        told = progress.get(cluster.name)
        if told is None or told.stage != cluster.stage:
            told = remembered_progress(stage, record)
        records[record.stage, record.number] = replace(record, progress=told if record.alive else None)
    for key, (seen, last) in remembered.items():
        if key not in records:
            record = without_cluster(seen, last, now)
            shared = there.get(record.cluster)
            records[key] = replace(record, remains=True, deleting=shared.deleting, leaving=shared.deleting) if shared else record
    return Children(
        wishes=wishes,
        attempts=tuple(records.values()),
        checkpoints=(*committed(previous), *(c for record in records.values() if (c := _commits(record)))),
        forgotten={stage.name: forgotten(stage) for stage in (previous.stages if previous else ())},
    )


def _is_ours(pods: list[PodFacts], wishes: Wishes) -> bool:
    """Not those of an earlier run of this name."""
    return all(pod.stage and pod.attempt and (pod.created_at is None or pod.created_at >= wishes.since) for pod in pods)


def _lost_cluster(pods: list[PodFacts], remembered: Remembered) -> ClusterFacts:
    """Somebody deleted the RayCluster before its pods, which is kubectl's way, and they live on while they save."""
    first = pods[0]
    _, before = remembered.get((first.stage, first.attempt), (None, None))
    others = [(stage.name, a) for stage, a in remembered.values() if a.cluster == first.cluster and stage.name != first.stage]
    return ClusterFacts(
        name=first.cluster,
        uid=first.owner_uid,
        owner_uid="",
        run="",
        stage=first.stage,
        attempt=first.attempt,
        config_digest=before.config_digest if before else None,
        created_at=parse_time(before.started_at) if before else first.created_at,
        deleting=min((pod.deleting for pod in pods if pod.deleting), default=None),
        suspended=False,
        provisioned_at=None,
        released_at=None,
        trouble="",
        num_workers=0,
        followers=tuple((stage, attempt.number, attempt.config_digest or "") for stage, attempt in others),
        lost=True,
    )


def _all_leaving(pods: list[PodFacts]) -> datetime | None:
    """Pods that nobody told to go are released like a cluster."""
    leaving = [pod.deleting for pod in pods if not pod.gone]
    return max((since for since in leaving if since), default=None) if all(leaving) else None


def _each_stage(cluster: ClusterFacts, pods: list[PodFacts]) -> Iterator[ClusterFacts]:
    """A cluster that stages share, once for each that has begun: one begins when the one before has succeeded."""
    yield cluster
    head = _head(pods)
    stage, number, created_at = cluster.stage, cluster.attempt, cluster.created_at
    for follower, attempt, digest in cluster.followers:
        before = head.containers.get(stage_container(stage)) if head else None
        result = _result(before, stage, number) if before and before.state == "terminated" else None
        if before is None or result is None or result.outcome != "Succeeded":
            return
        stage, number, created_at = follower, attempt, before.finished_at or created_at
        yield replace(cluster, stage=follower, attempt=attempt, config_digest=digest, created_at=created_at)


def record_of(cluster: ClusterFacts, pods: list[PodFacts], before: AttemptStatus | None, now: datetime) -> AttemptRecord:
    """One attempt, whose RayCluster is there."""
    head = _head(pods)
    stage = head.containers.get(stage_container(cluster.stage)) if head else None
    loss = find_loss(cluster, head, stage, pods)
    ended = stage is not None and stage.state == "terminated"
    runs = stage is not None and stage.state == "running"
    alive = (not ended and not cluster.deleting and (loss is None or runs)) or (runs and bool(cluster.deleting))
    result = _result(stage, cluster.stage, cluster.attempt) if ended and stage else None
    if ended and head and stage:
        loss = explain_end(cluster, head, stage) if result is None else find_cause(cluster, head, stage, result)
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
        restarts=dict(Counter(restart.failure_class for restart in result.restarts)) if result else restarts_of(before),
        loss=loss,
        deleting=cluster.deleting,
        leaving=cluster.deleting or (head.deleting if head else None),
        holding_since=max(head.started_at, cluster.created_at) if head and head.started_at and cluster.created_at else None,
        cluster=cluster.name,
        images={cluster.stage: stage.image} if stage and stage.image else {},
        gpu_seconds_before=before.gpu_seconds if before else 0.0,
        held_up=before.message if before and before.outcome == Outcome.RUNNING else "",
        waiting_since=max((time for time in (cluster.created_at, cluster.released_at) if time), default=None),
    )
    settled = settled_of(before)
    if settled is not None:
        return replace(record, alive=False, settled=settled, ended_at=parse_time(before.finished_at) if before else None, pending=None)
    return replace(record, pending=find_pending(cluster, head, stage, pods, now)) if alive and loss is None else record


def _stop(cluster: ClusterFacts, before: AttemptStatus | None) -> StopRequest | None:
    """We said why before we deleted it; a deletion nobody of us wrote down was somebody else's."""
    return remembered_stop(before, cluster.deleting) if cluster.deleting and before else None


def _head(pods: list[PodFacts]) -> PodFacts | None:
    """The newest; one that is gone only where there is no other."""
    return max((pod for pod in pods if pod.is_head), key=lambda pod: (not pod.gone, pod.created_at or LONG_AGO), default=None)


def _result(container: ContainerFacts, stage: str, attempt: int) -> StageResult | None:
    """Last words, where they are, and are those of this attempt."""
    try:
        result = StageResult.model_validate_json(container.message)
    except ValidationError:
        return None
    return result if (result.stage, result.attempt) == (stage, attempt) else None


def _exit_code(stage: ContainerFacts) -> int | None:
    """Negative for a signal, as processes have it."""
    code = stage.exit_code
    return SIGNAL_BASE - code if code is not None and SIGNAL_BASE < code < SIGNAL_BASE + 65 else code


def _ended_at(stage: ContainerFacts | None, before: AttemptStatus | None, now: datetime) -> datetime:
    return (stage.finished_at if stage else None) or parse_time(before.finished_at if before else None) or now


def _commits(record: AttemptRecord) -> CommittedCheckpoint | None:
    """The final checkpoint that an attempt's last words tell of."""
    result = record.result
    if result is None or result.outcome != "Succeeded" or result.checkpoint is None or not result.checkpoint.digest:
        return None
    if record.config_digest is None:  # nobody knows with what it was made; the next attempt finds it in the storage, and does
        return None
    return CommittedCheckpoint(
        stage=record.stage,
        attempt=record.number,
        uri=result.checkpoint.uri,
        digest=result.checkpoint.digest,
        step=result.checkpoint.step,
        final=True,
        config_digest=record.config_digest,
        created_at=format_time(record.ended_at) if record.ended_at else "",
        metrics=result.metrics,
        versions=result.versions,
        data=result.data,
    )
