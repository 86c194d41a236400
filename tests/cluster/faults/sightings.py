"""All that happened in one namespace, as the API server's own watches tell it: what is there now, and what was ever created."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from cluster.faults.api import Api, Object, Refused, place

WATCHED = ("prismruns", "rayclusters", "pods")
OnPod = Callable[[str, Object], None]


@dataclass
class Sightings:
    """Of one namespace. `on_pod` is told of each event of a pod as well."""

    api: Api
    namespace: str
    on_pod: OnPod = lambda event, pod: None
    objects: dict[str, dict[str, Object]] = field(default_factory=lambda: {resource: {} for resource in WATCHED})
    created: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """By resource and name: the uids of all that ever bore it."""
    most_at_once: int = 0
    """RayClusters of one stage attempt's run that were there together and not being deleted."""

    def run(self, name: str = "demo") -> Object | None:
        return self.objects["prismruns"].get(name)

    def clusters(self, run: str = "demo") -> list[Object]:
        return [raw for raw in self.objects["rayclusters"].values() if _run_of(raw) == run]

    def pods(self, run: str = "demo") -> list[Object]:
        return [raw for raw in self.objects["pods"].values() if _run_of(raw) == run]

    def head(self, cluster: str) -> Object | None:
        """The newest head pod of a RayCluster."""
        found = [pod for pod in self.objects["pods"].values() if is_head(pod) and pod["metadata"]["labels"]["ray.io/cluster"] == cluster]
        return max(found, key=lambda pod: int(pod["metadata"]["resourceVersion"]), default=None)

    def times_created(self, resource: str = "rayclusters") -> Counter[str]:
        """By name."""
        return Counter({name: len(uids) for (kind, name), uids in self.created.items() if kind == resource})

    def forget_created(self) -> None:
        """From now on another run of the same name counts."""
        self.created.clear()

    async def keep_watching(self) -> None:
        """For ever, also over the API server's restarts."""
        async with asyncio.TaskGroup() as group:
            for resource in WATCHED:
                group.create_task(self._watch(resource))

    async def _watch(self, resource: str) -> None:
        while True:
            try:
                async for event, raw in self.api.events(place(self.namespace, resource)):
                    self._see(resource, event, raw)
            except (aiohttp.ClientError, OSError, Refused, ValueError):
                await asyncio.sleep(0.1)

    def _see(self, resource: str, event: str, raw: Object) -> None:
        known = self.objects[resource]
        if event == "BEGIN":
            there = {item["metadata"]["uid"] for item in raw["items"] or ()}
            for gone in [each for each in known.values() if each["metadata"]["uid"] not in there]:
                self._see(resource, "DELETED", gone)
            return
        metadata = raw["metadata"]
        if event == "DELETED":
            known.pop(metadata["name"], None)
        else:
            known[metadata["name"]] = raw
            self.created.setdefault((resource, metadata["name"]), set()).add(metadata["uid"])
        if resource == "pods":
            self.on_pod(event, raw)


def is_head(pod: Object) -> bool:
    return bool(pod["metadata"].get("labels", {}).get("ray.io/node-type") == "head")


def _run_of(raw: Object) -> Any:
    return raw["metadata"].get("labels", {}).get("prism.dev/run")
