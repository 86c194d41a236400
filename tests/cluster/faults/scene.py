"""Where one test plays: a namespace, an operator behind a proxy, somebody who plays its pods, and eyes on all that happens."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from cluster.faults.api import Api, Object, place
from cluster.faults.operator_process import OperatorProcess
from cluster.faults.proxy import Proxy
from cluster.faults.runs import condition, is_finished, make_run, sentence
from cluster.faults.sightings import Sightings
from cluster.faults.stage_player import Pod, StagePlayer
from prism_operator.names import cluster_name, stage_condition

PATIENCE = 90.0
"""Seconds. Everything here takes a few; a busy machine takes longer."""


@dataclass(frozen=True)
class Plane:
    """The control plane as tests see it."""

    control: Any
    """`ControlPlane`: its components can be stopped and started."""
    api: Api
    rights: Sequence[Object]
    """Role and RoleBinding of the chart, for a namespace in whatever namespace."""
    stories: dict[str, asyncio.Task[Object]] = field(default_factory=dict)
    """Of runs that nothing disturbed, made once."""


@dataclass
class Scene:
    """Names are `demo` where none is given."""

    plane: Plane
    namespace: str
    sightings: Sightings
    player: StagePlayer
    proxies: list[Proxy] = field(default_factory=list)
    operators: list[OperatorProcess] = field(default_factory=list)

    @property
    def api(self) -> Api:
        return self.plane.api

    @property
    def proxy(self) -> Proxy:
        return self.proxies[0]

    @property
    def operator(self) -> OperatorProcess:
        return self.operators[0]

    def stage(self, cluster: str) -> Pod:
        """The head pod of a RayCluster, to play it by hand."""
        head = self.sightings.head(cluster)
        assert head is not None, f"{cluster} has no head pod. {self.told()}"
        return self.player.pods[head["metadata"]["name"]]

    async def apply(self, *stages: Object, name: str = "demo", **spec: Any) -> Object:
        """A PrismRun, as `make_run` makes it."""
        return await self.api.create(place(self.namespace, "prismruns"), make_run(*stages, name=name, **spec))

    async def edit(self, name: str = "demo", **spec: Any) -> Object:
        """Fields of its spec. Raises `Refused` with the words of admission."""
        return await self.api.patch(place(self.namespace, "prismruns", name), {"spec": spec})

    async def delete(self, resource: str, name: str, **options: Any) -> None:
        await self.api.delete(place(self.namespace, resource, name), **options)

    async def until(self, true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Raises AssertionError, which says what did not come true and what is told instead; an operator that died is told at once."""
        deadline = time.monotonic() + seconds
        while not true():
            for operator in self.operators:
                operator.require()
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not so after {seconds:.0f} s. {self.told()}")
            await asyncio.sleep(0.02)

    async def until_told(self, kind: str, *, reason: str = "", status: str = "", words: str = "", name: str = "demo") -> Object:
        """A condition of the run; the condition."""

        def holds() -> bool:
            found = condition(self.sightings.run(name), kind)
            return bool(found) and reason in ("", found["reason"]) and status in ("", found["status"]) and words in found["message"]

        await self.until(holds, f"{kind} is {status} {reason} {words}")
        return condition(self.sightings.run(name), kind)

    async def until_reason(self, reason: str, name: str = "demo") -> str:
        """Of the whole status; its message."""

        def status() -> Object:
            return (self.sightings.run(name) or {}).get("status") or {}

        await self.until(lambda: status().get("reason") == reason, f"the reason is {reason}")
        return str(status()["message"])

    async def until_runs(self, stage: str, attempt: int = 1, name: str = "demo") -> None:
        """The attempt's stage has begun, and the operator has said so."""
        cluster = cluster_name(name, stage, attempt)
        await self.until(lambda: cluster_of(self.sightings.run(name)) == cluster, f"{cluster} is the run's cluster")
        await self.until_told("ClusterReady", status="True", name=name)
        await self.until_told(stage_condition(stage), reason="Running", name=name)

    async def until_deleted(self, name: str = "demo") -> None:
        """And nothing of it is left."""
        await self.delete("prismruns", name)
        await self.until_gone(name)
        await self.until_bare(name)

    def begin_anew(self) -> None:
        """No faults, and nothing was ever created."""
        self.sightings.forget_created()
        for proxy in self.proxies:
            proxy.heal()

    async def until_finished(self, name: str = "demo") -> Object:
        """And none of its children is left; the run."""
        await self.until(lambda: is_finished(self.sightings.run(name)), f"{name} is finished")
        await self.until_bare(name)
        run = self.sightings.run(name)
        assert run is not None
        return run

    async def until_bare(self, name: str = "demo") -> None:
        """No RayCluster and no pod of it is left."""
        await self.until(lambda: not self.sightings.clusters(name) and not self.sightings.pods(name), f"{name} has no children")

    async def until_gone(self, name: str = "demo") -> None:
        await self.until(lambda: self.sightings.run(name) is None, f"{name} is gone")

    async def stays(self, true: Callable[[], Any], what: str, seconds: float) -> None:
        """It holds all the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert true(), f"{what}: not so any more. {self.told()}"
            await asyncio.sleep(0.02)

    def assert_created(self, *clusters: str) -> None:
        """These RayClusters, each once, and no other."""
        created = dict(self.sightings.times_created())
        assert created == dict.fromkeys(clusters, 1), f"created how often: {created}. {self.told()}"

    def told(self) -> str:
        """For a failing test."""
        runs = {name: sentence(run) for name, run in self.sightings.objects["prismruns"].items()}
        there = {resource: sorted(self.sightings.objects[resource]) for resource in ("rayclusters", "pods")}
        passed = [str(passing) for proxy in self.proxies for passing in proxy.writes()][-20:]
        return f"runs: {runs}; there: {there}; last writes: {passed}"


@asynccontextmanager
async def scene(plane: Plane, *, num_operators: int = 1, start: bool = True) -> AsyncIterator[Scene]:
    """In a new namespace, of which nothing is left."""
    namespace = f"faults-{uuid.uuid4().hex[:8]}"
    await plane.api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for right in plane.rights:
        group = "/apis/rbac.authorization.k8s.io/v1"
        body = {**right, "metadata": {"name": right["metadata"]["name"], "namespace": namespace}}
        await plane.api.create(f"{group}/namespaces/{namespace}/{right['kind'].lower()}s", body)
    player = StagePlayer(plane.api)
    sightings = Sightings(plane.api, namespace, player.on_pod)
    here = Scene(plane, namespace, sightings, player)
    watching = asyncio.create_task(sightings.keep_watching())
    try:
        async with _operators(here, num_operators, start):
            try:
                yield here
            except AssertionError as error:
                error.add_note(_log(here))
                raise
    finally:
        for operator in here.operators:
            await operator.kill()
        await _clear(here)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await player.close()


@asynccontextmanager
async def _operators(here: Scene, count: int, start: bool) -> AsyncIterator[None]:
    """Each behind a proxy of its own."""
    subject = next(right for right in here.plane.rights if right["kind"] == "RoleBinding")["subjects"][0]
    identity = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    if count == 0:
        yield
        return
    async with Proxy.open(here.api, identity) as proxy:
        name, processes = f"operator-{here.namespace}-{count}", here.plane.control.processes
        kubeconfig = proxy.write_kubeconfig(here.plane.control.dir / f"{name}.kubeconfig")
        operator = OperatorProcess(name, here.namespace, kubeconfig, processes)
        here.proxies.append(proxy)
        here.operators.append(operator)
        if start:
            await operator.start()
        async with _operators(here, count - 1, start):
            try:
                yield
            finally:
                await operator.kill()


async def _clear(here: Scene) -> None:
    """Whatever a failed test left: the finalizers of its runs would hold the namespace for ever."""
    for run in await here.api.list(place(here.namespace, "prismruns")):
        where = place(here.namespace, "prismruns", run["metadata"]["name"])
        with suppress(Exception):
            await here.api.patch(where, {"metadata": {"finalizers": []}})
    here.player.default = here.player.last_act
    await here.api.delete(f"/api/v1/namespaces/{here.namespace}")


def _log(here: Scene) -> str:
    """pytest shows it with the failure."""
    return "\n".join(f"--- the operator's log\n{operator.last_lines()}" for operator in here.operators)


def cluster_of(run: Object | None) -> Any:
    """The RayCluster of the live attempt."""
    return ((run or {}).get("status") or {}).get("cluster")
