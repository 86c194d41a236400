"""An API server and what acts on it, in memory: locking by version, finalizers, foreground deletion, watches; KubeRay and a kubelet.

Nothing happens by itself: each act is a method, so that a test decides the order, and whom the news reaches when.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from prism_operator.kube.comparison import compare_children
from prism_operator.kube.controller import Controller
from prism_operator.kube.door import ApiError
from prism_operator.kube.inventory import key_of
from prism_operator.names import PLURAL, STAGE_CONTAINER, job_annotation, stage_container
from prism_operator.settings import Settings
from prism_operator.timestamps import format_time
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.pod import PodJob
from prism_trainer.contract.report import EXIT_CODES, FailureClass, StageResult
from prism_trainer.contract.schema import digest_of

NAMESPACE = "team"
START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
WATCHED = ("rayclusters", "pods", PLURAL)
FOREGROUND = "foregroundDeletion"


class CrashError(BaseException):
    """The operator is killed here."""


@dataclass
class FakeApi:
    """Objects by resource and name, all in one namespace; `log` is what the watches tell, in the order it happened."""

    now: datetime = START
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    log: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=lambda: {resource: [] for resource in WATCHED})
    writes: list[str] = field(default_factory=list)
    """Of every writing request that was carried out: verb, resource and name."""
    on_create: Callable[[str, dict[str, Any]], None] = lambda resource, body: None
    on_status: Callable[[dict[str, Any], dict[str, Any]], None] = lambda before, after: None
    _counter: Any = field(default_factory=lambda: itertools.count(1))

    def get(self, resource: str, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.objects.get((resource, name)))

    def all(self, resource: str) -> list[dict[str, Any]]:
        return [copy.deepcopy(raw) for (kind, _), raw in self.objects.items() if kind == resource]

    def create(self, resource: str, body: Mapping[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if (resource, name) in self.objects:
            raise ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', f"POST {resource}")
        raw = copy.deepcopy(dict(body))
        raw["metadata"] |= {
            "namespace": NAMESPACE,
            "uid": f"uid-{next(self._counter)}",
            "creationTimestamp": format_time(self.now),
            "generation": 1,
        }
        self.on_create(resource, raw)
        return self._store(resource, "ADDED", raw)

    def change(self, resource: str, name: str, edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """As somebody else: no lock. A change that changes nothing is none."""
        raw = copy.deepcopy(self.objects[resource, name])
        before = copy.deepcopy(raw)
        edit(raw)
        if raw == before:
            return raw
        if raw.get("spec") != before.get("spec"):
            raw["metadata"]["generation"] += 1
        return self._settle(resource, raw)

    def delete(self, resource: str, name: str, policy: str = "Background", grace: int | None = None) -> None:
        raw = copy.deepcopy(self.objects[resource, name])
        metadata = raw["metadata"]
        if policy == "Foreground" and resource != "pods" and FOREGROUND not in metadata.get("finalizers", []):
            metadata["finalizers"] = [*metadata.get("finalizers", []), FOREGROUND]
        if resource == "pods":
            seconds = raw["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
            if seconds == 0:
                self._remove(resource, raw)
                return
            until = self.now + timedelta(seconds=seconds)
        else:
            seconds, until = 0, self.now
        if "deletionTimestamp" not in metadata:
            metadata |= {"deletionTimestamp": format_time(until), "deletionGracePeriodSeconds": seconds}
        self._settle(resource, raw)

    def collect_garbage(self) -> None:
        """The garbage collector's round: dependents of what goes in the foreground, and of what is gone, are told to go."""
        uids = {raw["metadata"]["uid"]: raw for raw in self.objects.values()}
        for (resource, name), raw in list(self.objects.items()):
            owner = next(iter(raw["metadata"].get("ownerReferences", [])), None)
            if owner is None or (resource, name) not in self.objects:
                continue
            above = uids.get(owner["uid"])
            goes = above is None or FOREGROUND in above["metadata"].get("finalizers", [])
            if goes and "deletionTimestamp" not in raw["metadata"]:
                self.delete(resource, name, "Background" if above is None else "Foreground")
        for (resource, _), raw in list(self.objects.items()):
            metadata = raw["metadata"]
            left = [o for o in self.objects.values() if any(r["uid"] == metadata["uid"] for r in o["metadata"].get("ownerReferences", []))]
            if FOREGROUND in metadata.get("finalizers", []) and not left:
                done = copy.deepcopy(raw)
                done["metadata"]["finalizers"].remove(FOREGROUND)
                self._settle(resource, done)

    def _settle(self, resource: str, raw: dict[str, Any]) -> dict[str, Any]:
        """What is being deleted and held by nobody is gone; a pod goes when the kubelet says so."""
        if resource != "pods" and "deletionTimestamp" in raw["metadata"] and not raw["metadata"].get("finalizers"):
            self._remove(resource, raw)
            return raw
        return self._store(resource, "MODIFIED", raw)

    def _store(self, resource: str, event: str, raw: dict[str, Any]) -> dict[str, Any]:
        raw["metadata"]["resourceVersion"] = str(next(self._counter))
        self.objects[resource, raw["metadata"]["name"]] = raw
        if resource in self.log:
            self.log[resource].append((event, copy.deepcopy(raw)))
        return copy.deepcopy(raw)

    def _remove(self, resource: str, raw: dict[str, Any]) -> None:
        raw["metadata"]["resourceVersion"] = str(next(self._counter))
        del self.objects[resource, raw["metadata"]["name"]]
        self.log[resource].append(("DELETED", copy.deepcopy(raw)))


class Turn:
    """One turn of whoever else wants to act."""

    def __await__(self) -> Any:
        yield


@dataclass
class FakeDoor:
    """The door's methods on a FakeApi. `fault` is asked at each write, with its number, before and after it."""

    api: FakeApi
    fault: Callable[[int, str], None] = lambda number, when: None
    num_writes: int = 0

    async def get(self, api: str, namespace: str, resource: str, name: str) -> dict[str, Any] | None:
        await Turn()
        return self.api.get(resource, name)

    async def metadata(self, api: str, resource: str, namespaces: Sequence[str], selector: str = "") -> list[dict[str, Any]]:
        await Turn()
        return [raw["metadata"] for raw in self.api.all(resource) if not selector or selector in raw["metadata"].get("labels", {})]

    async def list(self, api: str, namespace: str, resource: str, selector: str) -> list[dict[str, Any]]:
        key, value = selector.split("=")
        await Turn()
        return [raw for raw in self.api.all(resource) if raw["metadata"].get("labels", {}).get(key) == value]

    async def create(self, api: str, namespace: str, resource: str, body: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        if dry_run:
            return dict(body)
        if resource == "events":
            return {}
        return self._write(f"create {resource} {body['metadata']['name']}", lambda: self.api.create(resource, body))

    async def patch(self, api: str, namespace: str, resource: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        await Turn()

        def merge() -> dict[str, Any]:
            self._check(resource, name, body["metadata"])
            return self.api.change(resource, name, lambda raw: raw["metadata"].update(finalizers=list(body["metadata"]["finalizers"])))

        return self._write(f"patch {resource} {name}", merge)

    async def apply_status(self, run: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        await Turn()
        name = run["metadata"]["name"]

        def apply() -> dict[str, Any]:
            self._check(PLURAL, name, run["metadata"])
            self.api.on_status(self.api.objects[PLURAL, name], dict(status))
            return self.api.change(PLURAL, name, lambda raw: raw.update(status=copy.deepcopy(dict(status))))

        return self._write(f"status {PLURAL} {name}", apply)

    async def delete(
        self, api: str, namespace: str, resource: str, name: str, uid: str | None = None, grace_seconds: int | None = None
    ) -> None:
        await Turn()

        def delete() -> None:
            found = self.api.objects.get((resource, name))
            if found is not None and uid in (None, found["metadata"]["uid"]):
                self.api.delete(resource, name, "Foreground", grace_seconds)

        self._write(f"delete {resource} {name}", delete)

    def _check(self, resource: str, name: str, metadata: Mapping[str, Any]) -> None:
        found = self.api.objects.get((resource, name))
        if found is None:
            raise ApiError(404, "NotFound", f'{resource} "{name}" not found', f"PATCH {resource}")
        if metadata.get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise ApiError(409, "Conflict", "the UID in the precondition does not match", f"PATCH {resource}")
        if metadata["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified", f"PATCH {resource}")

    def _write(self, what: str, act: Callable[[], Any]) -> Any:
        self.num_writes += 1
        self.fault(self.num_writes, "before")
        answer = act()
        self.api.writes.append(what)
        self.fault(self.num_writes, "after")
        return answer


@dataclass
class Operator:
    """The real controller on a fake door, fed by hand as kopf would: events of one object in order, kinds in any."""

    api: FakeApi
    fault: Callable[[int, str], None] = lambda number, when: None
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """With nothing but a listing; as with kopf, clusters and pods are known before any run is looked at."""
        self.door = FakeDoor(self.api, self.fault)
        self.controller = Controller(self.door, self.settings, clock=self._clock, time_of_day=lambda: self.api.now)
        self.cursors = {resource: len(log) for resource, log in self.api.log.items()}
        self._pass: Any = None
        for resource in WATCHED:
            for raw in self.api.all(resource):
                self.tell(resource, "ADDED", raw)

    def _clock(self) -> float:
        return (self.api.now - START).total_seconds()

    def tell(self, resource: str, event: str, raw: dict[str, Any]) -> None:
        """One event, as the handlers take it."""
        inventory, queue = self.controller.inventory, self.controller.queue
        if resource == PLURAL and event == "DELETED":
            inventory.end_run(raw)
            queue.add(key_of(raw))
        elif resource == PLURAL:
            if inventory.put_run(raw):
                queue.add(key_of(raw))
        else:
            puts = {"rayclusters": (inventory.put_cluster, inventory.drop_cluster), "pods": (inventory.put_pod, inventory.drop_pod)}
            key = puts[resource][event == "DELETED"](raw)
            if key is not None:
                queue.add(key)

    def listen(self, resource: str, count: int | None = None, again: bool = False) -> None:
        """The next events of a kind; `again`: each twice, as after a watch that broke off."""
        log, cursor = self.api.log[resource], self.cursors[resource]
        for event, raw in log[cursor : None if count is None else cursor + count]:
            for _ in range(1 + again):
                self.tell(resource, event, copy.deepcopy(raw))
            self.cursors[resource] += 1

    def miss(self, resource: str) -> None:
        """The next event of a kind never comes."""
        self.cursors[resource] = min(self.cursors[resource] + 1, len(self.api.log[resource]))

    def listen_to_all(self) -> None:
        for resource in WATCHED:
            self.listen(resource)

    def turn(self) -> bool:
        """One request of the pass under way, or the beginning of one; False where there is nothing to do."""
        if self._pass is None:
            self.controller.queue._ring()
            if not len(self.controller.queue):
                return False
            key, waited = _finish(self.controller.queue.get())
            self._key, self._pass = key, self.controller.handle(key, waited)
        try:
            self._pass.send(None)
        except StopIteration as end:
            self._pass = None
            self.controller.queue.done(self._key, failed=not end.value)
        return True

    def compare(self) -> None:
        """What it does every few minutes."""
        listing = compare_children(self.controller)
        with contextlib.suppress(StopIteration):
            while True:
                listing.send(None)

    def work(self, limit: int = 500) -> None:
        """Until there is nothing to do."""
        while self.turn():
            limit -= 1
            assert limit, f"the operator never comes to rest: {self.api.writes[-20:]}"


def _finish(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits, and nothing is there")


@dataclass
class Nature:
    """KubeRay, the kubelet and the stages themselves. A stage finds what was committed before, as the real one does."""

    api: FakeApi
    committed: dict[tuple[str, str], CheckpointRef] = field(default_factory=dict)
    """By stage and configuration digest."""
    trained: list[tuple[str, int]] = field(default_factory=list)

    def kuberay(self) -> None:
        """A head for every cluster that needs its first; and the note that all is ready."""
        for cluster in self.api.all("rayclusters"):
            name, metadata = cluster["metadata"]["name"], cluster["metadata"]
            heads = [pod for pod in self.api.all("pods") if pod["metadata"]["ownerReferences"][0]["uid"] == metadata["uid"]]
            if "deletionTimestamp" in metadata:
                continue
            if not heads and not self._provisioned(cluster):
                self.api.create("pods", _head_pod(cluster))
            elif heads and heads[0]["status"]["phase"] == "Running" and not self._provisioned(cluster):
                ready = {"type": "RayClusterProvisioned", "status": "True", "lastTransitionTime": format_time(self.api.now)}
                self.api.change("rayclusters", name, lambda raw, ready=ready: raw.update(status={"conditions": [ready]}))

    def kubelet_starts(self) -> None:
        for pod in self.pods("Pending"):
            self._run(pod)

    def kubelet_ends(self) -> None:
        """Pods that are told to go: their stages save and stop, and when their containers have ended they are gone."""
        for pod in self.api.all("pods"):
            if "deletionTimestamp" in pod["metadata"]:
                if current_stage(pod):
                    self.end(pod, "Stopped", FailureClass.PREEMPTED)
                else:
                    self.api.delete("pods", pod["metadata"]["name"], grace=0)

    def pods(self, phase: str) -> list[dict[str, Any]]:
        """Pending, or Running with a stage that runs."""
        alive = [pod for pod in self.api.all("pods") if "deletionTimestamp" not in pod["metadata"]]
        return [pod for pod in alive if pod["status"]["phase"] == phase and (phase == "Pending" or current_stage(pod))]

    def succeed(self, pod: dict[str, Any]) -> None:
        told = pod_job(pod)
        job = told.job
        for role, ref in job.inputs.items():
            made = told.after is not None and ref.digest is None and any(stage == ref.stage for stage, _ in self.committed)
            assert ref.stage == "model" or made or ref in self.committed.values(), f"{role} of {job.stage} was never committed: {ref}"
        if (job.stage, job.config_digest) not in self.committed:
            uri, digest = f"{job.output_uri}/step-000004", digest_of([job.stage, job.attempt, job.config_digest])
            self.committed[job.stage, job.config_digest] = CheckpointRef(stage=job.stage, uri=uri, digest=digest, step=4, revision=None)
            self.trained.append((job.stage, job.attempt))
        self.end(pod, "Succeeded")

    def end(
        self, pod: dict[str, Any], outcome: Any, failure: FailureClass | None = None, words: str | None = None, code: int | None = None
    ) -> None:
        job = pod_job(pod).job
        checkpoint = self.committed.get((job.stage, job.config_digest)) if outcome == "Succeeded" else None
        result = StageResult(
            stage=job.stage, attempt=job.attempt, outcome=outcome, failure_class=failure, message="so it went", checkpoint=checkpoint
        )
        known = EXIT_CODES.get(failure, 1) if failure else 0
        state = {
            "exitCode": known if code is None else code,
            "reason": "Completed" if outcome == "Succeeded" else "Error",
            "message": result.to_message() if words is None else words,
            "finishedAt": format_time(self.api.now),
        }

        def ended(raw: dict[str, Any]) -> None:
            (own,) = [each for each in raw["status"]["containerStatuses"] if each["name"] == stage_container(job.stage)]
            own["state"] = {"terminated": state}
            if outcome != "Succeeded":  # those that wait for it wait in vain
                for waiting in raw["status"]["containerStatuses"][1:]:
                    if "running" in waiting["state"]:
                        waiting["state"] = {"terminated": {"exitCode": 74, "reason": "Error", "finishedAt": state["finishedAt"]}}
            raw["status"]["phase"] = "Failed" if "deletionTimestamp" in raw["metadata"] and not current_stage(raw) else "Running"

        self.api.change("pods", pod["metadata"]["name"], ended)

    def everything(self) -> None:
        """One round in which all that can go well does."""
        self.kuberay()
        self.kubelet_starts()
        self.kuberay()
        for pod in self.pods("Running"):
            self.succeed(pod)
        self.wind_up()

    def wind_up(self) -> None:
        """What is told to go, goes."""
        for _ in range(3):
            self.api.collect_garbage()
            self.kubelet_ends()
        self.api.collect_garbage()

    def _run(self, pod: dict[str, Any]) -> None:
        started = {"running": {"startedAt": format_time(self.api.now)}}
        names = [container["name"] for container in pod["spec"]["containers"]]
        statuses = [{"name": name, "state": dict(started), "imageID": "sha256:image"} for name in names]
        status = {"phase": "Running", "startTime": format_time(self.api.now), "containerStatuses": statuses}
        self.api.change("pods", pod["metadata"]["name"], lambda raw: raw.update(status=status))

    @staticmethod
    def _provisioned(cluster: dict[str, Any]) -> bool:
        return bool((cluster.get("status") or {}).get("conditions"))


def current_stage(pod: dict[str, Any]) -> str:
    """The first whose container runs; those behind it wait."""
    statuses = pod["status"].get("containerStatuses", [])[1:]
    return next((each["name"].removeprefix(f"{STAGE_CONTAINER}-") for each in statuses if "running" in each["state"]), "")


def pod_job(pod: dict[str, Any]) -> PodJob:
    """What its current stage was told."""
    return PodJob.model_validate_json(pod["metadata"]["annotations"][job_annotation(current_stage(pod))])


def _head_pod(cluster: dict[str, Any]) -> dict[str, Any]:
    template, metadata = cluster["spec"]["headGroupSpec"]["template"], cluster["metadata"]
    owner = {"kind": "RayCluster", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    labels = {**template["metadata"]["labels"], "ray.io/cluster": metadata["name"], "ray.io/node-type": "head"}
    named = {"name": f"{metadata['name']}-head-{metadata['uid']}", "labels": labels, "annotations": template["metadata"]["annotations"]}
    return {"metadata": {**named, "ownerReferences": [owner]}, "spec": copy.deepcopy(template["spec"]), "status": {"phase": "Pending"}}
