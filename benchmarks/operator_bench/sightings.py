"""What the benchmark has seen of RayClusters, pods and PrismRuns, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.operator_bench.api import CLUSTERS, PODS, RUNS, Api

ORIGIN = "ray.io/originated-from-cr-name"
RUN, STAGE, ATTEMPT = "prism.dev/run", "prism.dev/stage", "prism.dev/attempt"


@dataclass
class Sightings:
    """Times are `time.perf_counter()` seconds of the first event."""

    clusters: dict[str, float] = field(default_factory=dict)
    """By name of the RayCluster."""
    of_jobs: dict[str, float] = field(default_factory=dict)
    """RayClusters by name of the RayJob they belong to."""
    pods: dict[str, list[float]] = field(default_factory=dict)
    """Of a RayCluster, by its name."""
    heads: dict[str, str] = field(default_factory=dict)
    """Name of the head pod, by RayCluster."""
    attempts: list[tuple[str, str, int]] = field(default_factory=list)
    """Run, stage and attempt of every RayCluster of ours that ever appeared."""
    succeeded: dict[tuple[str, str], float] = field(default_factory=dict)
    """When a PrismRun's status told first that a stage of it succeeded, by run and stage."""
    at: float = 0.0
    """Of the last event of all."""
    alive: set[str] = field(default_factory=set)
    """RayClusters that exist."""

    @classmethod
    @asynccontextmanager
    async def watch(cls, api: Api) -> AsyncIterator[Sightings]:
        """From now on."""
        seen = cls()
        async with AsyncExitStack() as watches:
            await watches.enter_async_context(api.watch(CLUSTERS, seen._cluster))
            await watches.enter_async_context(api.watch(PODS, seen._pod))
            yield seen

    @asynccontextmanager
    async def watch_runs(self, api: Api) -> AsyncIterator[None]:
        """Whole PrismRuns are heavy; they are watched only while their status is measured."""
        async with api.watch(RUNS, self._run, whole=True):
            yield

    def _cluster(self, now: float, type_: str, raw: dict[str, Any]) -> None:
        name, labels = raw["metadata"]["name"], raw["metadata"].get("labels") or {}
        self.at = now
        if type_ == "DELETED":
            self.alive.discard(name)
        elif type_ == "ADDED":
            self.alive.add(name)
            self.clusters[name] = now
            if ORIGIN in labels:
                self.of_jobs.setdefault(labels[ORIGIN], now)
            if RUN in labels:
                self.attempts.append((labels[RUN], labels[STAGE], int(labels[ATTEMPT])))

    def _pod(self, now: float, type_: str, raw: dict[str, Any]) -> None:
        labels = raw["metadata"].get("labels") or {}
        cluster = labels.get("ray.io/cluster")
        self.at = now
        if type_ == "ADDED" and cluster:
            self.pods.setdefault(cluster, []).append(now)
            if labels.get("ray.io/node-type") == "head":
                self.heads[cluster] = raw["metadata"]["name"]

    def _run(self, now: float, type_: str, raw: dict[str, Any]) -> None:
        self.at = now
        for stage in (raw.get("status") or {}).get("stages") or ():
            if stage.get("state") == "Succeeded":
                self.succeeded.setdefault((raw["metadata"]["name"], stage["name"]), now)
