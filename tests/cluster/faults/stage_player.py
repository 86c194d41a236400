"""Plays the kubelet for the pods of RayClusters, which the real KubeRay makes and the real scheduler places; there are no containers.

What happens in a pod is a part, an async function of the pod; a test gives one to a stage attempt, all others play `succeeds`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import aiohttp

from cluster.faults.api import STRATEGIC, Api, Object, Refused, place
from cluster.faults.sightings import is_head
from prism_operator.names import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL, stage_container
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.report import EXIT_CODES, FailureClass, StageResult

logger = logging.getLogger(__name__)

STEPS = 40
Outcome = Literal["Succeeded", "Failed", "Stopped"]


@dataclass
class Pod:
    """One pod, and what a kubelet may write about it."""

    api: Api
    raw: Object
    states: dict[str, Object] = field(default_factory=dict)
    """Of each container, as the kubelet spells it."""
    begun: list[str] = field(default_factory=list)
    """Stages whose containers ran."""

    def __post_init__(self) -> None:
        self.states = {container["name"]: {"waiting": {"reason": "ContainerCreating"}} for container in self.raw["spec"]["containers"]}

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def stages(self) -> list[str]:
        """Those that have a container in it, in order."""
        prefix = stage_container("")
        return [name.removeprefix(prefix) for name in self.states if name.startswith(prefix)]

    def label(self, name: str) -> str:
        return str(self.raw["metadata"]["labels"].get(name, ""))

    async def run(self) -> None:
        """All containers run; the stages' are ready as well."""
        for name in self.states:
            self.states[name] = {"running": {"startedAt": now()}}
        self.begun = self.stages
        await self.tell()

    async def end(self, stage: str, exit_code: int, message: str = "", reason: str = "") -> None:
        """The stage's container ends."""
        words = {"reason": reason or ("Completed" if exit_code == 0 else "Error"), "message": message}
        self.states[stage_container(stage)] = {"terminated": {"exitCode": exit_code, "startedAt": now(), "finishedAt": now(), **words}}
        await self.tell()

    async def succeed(self, stage: str = "") -> None:
        """With a checkpoint that nobody has trained."""
        stage = stage or self.label(STAGE_LABEL)
        await self.end(stage, 0, self.result(stage, outcome="Succeeded", step=STEPS).to_message())

    async def fail(self, failure_class: FailureClass, message: str, stage: str = "") -> None:
        stage = stage or self.label(STAGE_LABEL)
        words = self.result(stage, outcome="Failed", failure_class=failure_class, message=message).to_message()
        await self.end(stage, EXIT_CODES.get(failure_class, 1), words)

    async def wait_for(self, container: str, reason: str, message: str) -> None:
        """The container waits; the kubelet says what for."""
        self.states[container] = {"waiting": {"reason": reason, "message": message}}
        await self.tell()

    async def lose(self, reason: str, message: str, disruption: str = "") -> None:
        """The pod as a whole has failed: evicted, preempted, or on a node that is gone."""
        for name in self.states:
            self.states[name] = {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": now(), "finishedAt": now()}}
        conditions = [condition("DisruptionTarget", True, disruption, message)] if disruption else []
        await self.tell(phase="Failed", conditions=conditions, reason=reason, message=message)

    def result(
        self, stage: str, outcome: Outcome, step: int = 0, failure_class: FailureClass | None = None, message: str = ""
    ) -> StageResult:
        """Last words, the same for the same run, stage and attempt."""
        run, attempt = self.label(RUN_LABEL), int(self.label(ATTEMPT_LABEL))
        attempt = attempt if stage == self.label(STAGE_LABEL) else 1
        uri = f"s3://bucket/{run}/checkpoints/{stage}/attempt-{attempt}/step-{step:06d}"
        digest = f"sha256:{hashlib.sha256(uri.encode()).hexdigest()}"
        checkpoint = CheckpointRef(stage=stage, uri=uri, digest=digest, step=step, revision=None) if step else None
        return StageResult(
            stage=stage,
            attempt=attempt,
            outcome=outcome,
            failure_class=failure_class,
            message=message,
            checkpoint=checkpoint,
            metrics={"loss": 0.25},
            versions={"torch": "2.11.0"},
        )

    async def save_and_end(self) -> None:
        """What SIGTERM does to a stage: it saves, says so, and the pod's containers have ended."""
        for stage in self.stages:
            if "running" in self.states[stage_container(stage)]:
                words = self.result(stage, outcome="Stopped", step=STEPS // 2, message="was stopped from outside, and saved").to_message()
                await self.end(stage, EXIT_CODES[FailureClass.PREEMPTED], words)

    async def remove(self) -> None:
        """The kubelet's last act."""
        await self.api.delete(self._place(), gracePeriodSeconds=0, preconditions={"uid": self.raw["metadata"]["uid"]})

    async def tell(self, phase: str = "", conditions: list[Object] | None = None, reason: str = "", message: str = "") -> None:
        running = [name for name, state in self.states.items() if "running" in state]
        ready = len(running) == len(self.states)
        begun = phase or ("Running" if running or any("terminated" in state for state in self.states.values()) else "Pending")
        status = {
            "phase": begun,
            "startTime": self.raw["metadata"]["creationTimestamp"],
            "reason": reason or None,
            "message": message or None,
            "conditions": [condition("Ready", ready), condition("ContainersReady", ready), *(conditions or [])],
            "containerStatuses": [
                {"name": name, "image": "i", "imageID": f"sha256:{'0' * 64}", "ready": "running" in s, "restartCount": 0, "state": s}
                for name, s in self.states.items()
            ],
        }
        # the uid: a pod that is gone may have a successor of its name
        await self.api.patch(self._place("status"), {"metadata": {"uid": self.raw["metadata"]["uid"]}, "status": status}, STRATEGIC)

    def _place(self, part: str = "") -> str:
        return place(self.raw["metadata"]["namespace"], "pods", self.name, part)


Part = Callable[[Pod], Awaitable[None]]


async def succeeds(pod: Pod) -> None:
    """Every stage in it, one after another."""
    await pod.run()
    for stage in pod.stages:
        await pod.succeed(stage)


async def runs(pod: Pod) -> None:
    """And never ends by itself."""
    await pod.run()


def fails(failure_class: FailureClass, message: str = "it broke") -> Part:
    """After it has begun."""

    async def part(pod: Pod) -> None:
        await pod.run()
        await pod.fail(failure_class, message)

    return part


async def saves(pod: Pod) -> None:
    """The last act of a pod that is being deleted: what runs in it saves, and it goes."""
    await pod.save_and_end()
    await pod.remove()


@dataclass
class StagePlayer:
    """Of one namespace. `parts` by cluster name; a pod of a worker only runs."""

    api: Api
    parts: dict[str, Part] = field(default_factory=dict)
    default: Part = succeeds
    last_act: Part = saves
    pods: dict[str, Pod] = field(default_factory=dict)
    """By name: those on the stage."""
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _leaving: set[str] = field(default_factory=set)

    def on_pod(self, event: str, raw: Object) -> None:
        """For `Sightings`: a pod that has been placed begins, one that is being deleted leaves."""
        metadata = raw["metadata"]
        uid = metadata["uid"]
        if event == "DELETED":
            self._stop(uid)
            self._leaving.discard(uid)
        elif "deletionTimestamp" in metadata:
            if uid not in self._leaving:
                self._leaving.add(uid)
                self._stop(uid)
                pod = self.pods.get(metadata["name"]) or Pod(self.api, raw)
                self._tasks[uid] = asyncio.create_task(_play(self.last_act, pod))
        elif raw["spec"].get("nodeName") and uid not in self._tasks:
            pod = self.pods[metadata["name"]] = Pod(self.api, raw)
            self._tasks[uid] = asyncio.create_task(_play(self._part(raw), pod))

    def _part(self, raw: Object) -> Part:
        return self.parts.get(raw["metadata"]["labels"]["ray.io/cluster"], self.default) if is_head(raw) else runs

    def _stop(self, uid: str) -> None:
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _play(part: Part, pod: Pod) -> None:
    """Over the API server's restarts; a pod that is gone ends its part."""
    while True:
        try:
            return await part(pod)
        except Refused as refused:
            if refused.status in (404, 409):
                return None
            logger.warning("pod %s: %s", pod.name, refused)
        except (aiohttp.ClientError, OSError) as error:
            logger.info("pod %s: %r", pod.name, error)
        await asyncio.sleep(0.2)


def condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": str(holds), "reason": reason, "message": message, "lastTransitionTime": now()}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
