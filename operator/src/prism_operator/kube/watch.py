"""RayClusters and pods: listed in pages, then watched, as long as the operator lives. An event only says which run to look at.

Not by kopf, which holds a whole listing at once, copies each object three times and gives each a task of its own (decisions/0003).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prism_operator.errors import ClusterError
from prism_operator.kube import metrics
from prism_operator.kube.controller import Controller
from prism_operator.kube.door import CLUSTERS, CORE, ApiError, places
from prism_operator.kube.inventory import RunKey
from prism_operator.names import RUN_LABEL

logger = logging.getLogger(__name__)

PAGE = 250
"""Objects a request: a page is parsed in one go, and nothing else happens meanwhile."""
LONGEST_PAUSE = 30.0
GONE, NOT_FOUND = 410, 404


@dataclass
class Watch:
    """One kind, in one namespace or in all."""

    controller: Controller
    place: str
    """Path of the listing."""
    resource: str
    put: Callable[[Mapping[str, Any]], RunKey | None]
    drop: Callable[[Mapping[str, Any]], RunKey | None]
    known: Callable[[], Mapping[str, RunKey]]
    """By uid: what the inventory has of this kind, in all namespaces."""
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set for good by the first listing."""

    async def keep_watching(self) -> None:
        """Until it is cancelled. What cannot be had is asked for again, later and later."""
        pause = 0.0
        while True:
            try:
                version = await self._list()
                self.listed.set()
                pause = 0.0
                await self._follow(version)
            except ApiError as error:
                if error.status == NOT_FOUND:  # nobody has installed KubeRay: there are none, for the time being
                    self.listed.set()
                    pause = LONGEST_PAUSE
                logger.warning("%s cannot be watched: %s", self.resource, error)
            except ClusterError as error:
                logger.warning("%s cannot be listed: %s", self.resource, error)
            pause = min(max(2 * pause, 0.25), LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _list(self) -> str:
        """Its version. A run one of whose objects went unseen is counted anew before its next decision."""
        before, there, version = dict(self.known()), set(), ""
        async for page in self.controller.door.pages(self.place, RUN_LABEL, PAGE):
            version = page["metadata"]["resourceVersion"]
            for raw in page.get("items") or ():
                there.add(raw["metadata"]["uid"])
                self._heed(self.put(raw))
        for uid, key in before.items():
            if uid not in there and self._covers(key):
                self.controller.doubt(key)
        return version

    async def _follow(self, version: str) -> None:
        """Event after event, through as many watches as it takes, until the API server no longer knows the version.

        Between two watches there is a pause, also after one that ended in peace: some end at once.
        """
        pause = 0.0
        while True:
            try:
                async for event in self.controller.door.watch(self.place, RUN_LABEL, version):
                    if event["type"] == "ERROR":
                        raise _refused(event["object"], self.place)
                    pause, version = 0.0, event["object"]["metadata"]["resourceVersion"]
                    self._tell(event["type"], event["object"])
            except ApiError as error:
                if error.status == GONE:
                    return
                logger.warning("%s: %s", self.resource, error)
            except ClusterError as error:
                logger.info("%s", error)
            pause = min(max(2 * pause, 0.25), LONGEST_PAUSE)
            await asyncio.sleep(pause)

    def _tell(self, type_: str, raw: Mapping[str, Any]) -> None:
        metrics.note_event(self.resource)
        if type_ == "DELETED":
            self._heed(self.drop(raw))
        elif type_ != "BOOKMARK":
            self._heed(self.put(raw))

    def _heed(self, key: RunKey | None) -> None:
        if key is not None:
            self.controller.queue.add(key)

    def _covers(self, key: RunKey) -> bool:
        namespaces = self.controller.settings.watch_namespaces
        return not namespaces or f"/namespaces/{key.namespace}/" in self.place


def child_watches(controller: Controller) -> list[Watch]:
    """Of RayClusters and pods, wherever the operator looks."""
    inventory, namespaces = controller.inventory, controller.settings.watch_namespaces
    clusters = inventory.put_cluster, inventory.drop_cluster, inventory.clusters_by_uid
    pods = inventory.put_pod, inventory.drop_pod, inventory.pods_by_uid
    return [
        *(Watch(controller, place, "rayclusters", *clusters) for place in places(CLUSTERS, namespaces, "rayclusters")),
        *(Watch(controller, place, "pods", *pods) for place in places(CORE, namespaces, "pods")),
    ]


def _refused(status: Mapping[str, Any], place: str) -> ApiError:
    return ApiError(int(status.get("code") or 0), status.get("reason", ""), status.get("message", ""), f"WATCH {place}")
