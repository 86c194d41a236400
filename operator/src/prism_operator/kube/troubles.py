"""What is wrong with a cluster: what it lost, and what it still waits for, in the words of whoever holds it up. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from prism_operator.children import Outcome, Pending, Verdict
from prism_operator.kube.facts import ClusterFacts, ContainerFacts, PodFacts
from prism_operator.names import HEAD_CONTAINER, WORKER_CONTAINER
from prism_trainer.contract.report import EXIT_CODES, FailureClass, StageResult


def find_loss(cluster: ClusterFacts, head: PodFacts | None, stage: ContainerFacts | None, pods: list[PodFacts]) -> Verdict | None:
    """What is gone and does not come back."""
    if stage is not None and stage.state == "terminated":
        return None
    if cluster.lost and not any(pod.deleting for pod in pods if not pod.gone):
        return _taken(cluster)  # its pods were orphaned, and nobody else stops them
    if cluster.deleting and (stage is None or stage.state != "running"):
        return _taken(cluster)
    if head is None or head.gone:
        if cluster.suspended:
            taken = f"RayCluster {cluster.name} was suspended by its queue"
            return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, taken) if cluster.provisioned_at else None
        gone = f"the head pod of RayCluster {cluster.name} is gone"
        return Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, gone) if cluster.provisioned_at else None
    if head.phase == "Failed":
        return _pod_failed(head)
    ray = head.containers.get(HEAD_CONTAINER)
    if ray is not None and ray.state == "terminated" and not (cluster.deleting or head.disrupted):  # KubeRay deletes such a pod at once
        return _head_ended(head, ray)
    return _worker_loss(cluster, [pod for pod in pods if not pod.is_head])


def find_cause(cluster: ClusterFacts, head: PodFacts, stage: ContainerFacts, result: StageResult) -> Verdict | None:
    """Why a stage that saved in peace was told to: where Ray's head ends by itself KubeRay deletes the pod. Told to end, it ends last."""
    ray = head.containers.get(HEAD_CONTAINER)
    if result.outcome != "Stopped" or cluster.deleting or head.disrupted or ray is None or ray.state != "terminated":
        return None
    ended_first = ray.finished_at is not None and stage.finished_at is not None and ray.finished_at < stage.finished_at
    return _head_ended(head, ray) if ended_first else None


def _head_ended(head: PodFacts, ray: ContainerFacts) -> Verdict:
    return Verdict(Outcome.FAILED, FailureClass.HEAD_LOST, f"Ray's head in pod {head.name} ended ({_how(ray)})")


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


def _taken(cluster: ClusterFacts) -> Verdict:
    return Verdict(Outcome.STOPPED, FailureClass.PREEMPTED, f"RayCluster {cluster.name} was deleted by somebody else")


def explain_end(cluster: ClusterFacts, head: PodFacts, stage: ContainerFacts) -> Verdict | None:
    """A container without last words, where Kubernetes knows more than the exit code says."""
    if stage.reason == "OOMKilled":
        return Verdict(Outcome.FAILED, FailureClass.OUT_OF_MEMORY, "its container was killed because it used more memory than its limit")
    if stage.exit_code in TELLING_EXIT_CODES:
        return None
    if head.disrupted or (head.phase == "Failed" and head.ended):
        return _pod_failed(head)
    return _taken(cluster) if cluster.deleting else None


TELLING_EXIT_CODES = set(EXIT_CODES.values()) - {EXIT_CODES[FailureClass.USER_ERROR]}
"""Those that only a stage ends with; any program that is broken off may end with 1."""


def find_pending(
    cluster: ClusterFacts, head: PodFacts | None, stage: ContainerFacts | None, pods: list[PodFacts], now: datetime
) -> Pending | None:
    """In the words of whoever holds it up; none once the stage and its gang are there."""
    if cluster.suspended:
        return Pending("WaitingForQuota", f"RayCluster {cluster.name} is suspended until its queue admits it.", queued=True)
    blocked = next((found for pod in pods if (found := _blocked(pod))), None)
    if blocked is not None and cluster.provisioned_at is None:
        return blocked
    if cluster.trouble and (head is None or cluster.provisioned_at is None):
        reason = "QuotaExceeded" if "exceeded quota" in cluster.trouble else "PodsRefused"
        return Pending(reason, f"KubeRay cannot create the pods of {cluster.name}: {cluster.trouble}")
    slow = _being_started(cluster, head, stage, pods)
    since = max((time for time in (cluster.created_at, cluster.released_at) if time), default=None)
    if slow and since and now < since + QUICK:
        return Pending("Provisioning", f"The pods of RayCluster {cluster.name} are being started.", until=since + QUICK)
    return Pending("Provisioning", slow) if slow else None


QUICK = timedelta(seconds=10)
"""A start this quick is told of in one sentence: each further one would be a write to the API server for a second of its time."""


def _being_started(cluster: ClusterFacts, head: PodFacts | None, stage: ContainerFacts | None, pods: list[PodFacts]) -> str:
    """What is missing; empty where nothing is."""
    if head is None:
        return f"RayCluster {cluster.name} has no head pod yet."
    if stage is None or stage.state == "waiting":
        volumes = " If it stays so, look whether the volume claim and the Secrets it mounts exist." if head.node else ""
        return f"Pod {head.name} is being started.{volumes}"
    if cluster.provisioned_at is None and cluster.num_workers:
        ready = sum(pod.ready for pod in pods if not pod.is_head)
        if ready < cluster.num_workers:
            return f"{ready} of {cluster.num_workers} workers are ready."
    return ""


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


def _has_ended(pod: PodFacts, container: str) -> bool:
    found = pod.containers.get(container)
    return found is not None and found.state == "terminated"


def _how(container: ContainerFacts) -> str:
    return container.reason or f"exit code {container.exit_code}"
