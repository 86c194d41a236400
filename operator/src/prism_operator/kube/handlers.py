"""kopf's part: three watches, and nothing of kopf's change detection, timers or daemons. An event only says which run to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kopf

from prism_operator.kube import metrics
from prism_operator.kube.controller import Controller
from prism_operator.kube.inventory import RunKey, key_of
from prism_operator.kube.unstored import NoDiffs, NoProgress
from prism_operator.names import GROUP, PLURAL, RUN_LABEL, VERSION
from prism_operator.settings import Settings

REQUEST_SECONDS = 20.0
SERVER_WATCH_SECONDS = 240
CLIENT_WATCH_SECONDS = 300


def make_registry(controller: Controller) -> kopf.OperatorRegistry:
    """What is told goes into the inventory, and the run's key into the queue."""
    registry = kopf.OperatorRegistry()
    inventory = controller.inventory

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_run(event: Any, **_: Any) -> None:
        _note(PLURAL)
        raw = event["object"]
        key = key_of(raw)
        if event["type"] is None and inventory.knows(key) and any(inventory.children(key)):
            controller.doubt(key)
        if event["type"] == "DELETED":
            inventory.end_run(raw)
            controller.queue.add(key)
        elif inventory.put_run(raw):
            controller.queue.add(key)

    _watch_children(registry, controller, ("ray.io", "v1", "rayclusters"), inventory.put_cluster, inventory.drop_cluster)
    _watch_children(registry, controller, ("", "v1", "pods"), inventory.put_pod, inventory.drop_pod)

    @kopf.on.login(registry=registry)
    async def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return registry


def _watch_children(
    registry: kopf.OperatorRegistry,
    controller: Controller,
    resource: tuple[str, str, str],
    put: Callable[[Any], RunKey | None],
    drop: Callable[[Any], RunKey | None],
) -> None:
    """Not by `kopf.index`: while it lists, every object of it waits for every other, which takes 20 s for 3,000 of them."""

    @kopf.on.event(*resource, id=f"watch-{resource[2]}", registry=registry)
    async def on_child(event: Any, **_: Any) -> None:
        _note(resource[2])
        key = (drop if event["type"] == "DELETED" else put)(event["object"])
        if key is not None:
            controller.queue.add(key)


def make_kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Its defaults are made for handlers of its own kind; each of these is a complaint of somebody's (see decisions/0003)."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.peering.standalone = True
    configured.scanning.disabled = bool(settings.watch_namespaces)
    configured.networking.request_timeout = REQUEST_SECONDS
    configured.watching.server_timeout = SERVER_WATCH_SECONDS
    configured.watching.client_timeout = CLIENT_WATCH_SECONDS
    configured.queueing.idle_timeout = 1.0
    configured.persistence.diffbase_storage = NoDiffs()
    configured.persistence.progress_storage = NoProgress()
    configured.watching.label_selectors["rayclusters.ray.io"] = RUN_LABEL
    configured.watching.label_selectors["pods"] = RUN_LABEL
    return configured


_SEEN: dict[str, float] = {}


def _note(resource: str) -> None:
    _SEEN[resource] = time.monotonic()
    metrics.EVENT_AGE.labels(resource).set_function(lambda: time.monotonic() - _SEEN[resource])
