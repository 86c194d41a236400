"""kopf's part: the watch of PrismRuns, without kopf's change detection, timers or daemons. An event only says which run to look at."""

from __future__ import annotations

from typing import Any

import kopf

from prism_operator.kube import metrics
from prism_operator.kube.controller import Controller
from prism_operator.kube.door import SERVER_WATCH_SECONDS, TIMEOUT_SECONDS
from prism_operator.kube.inventory import key_of
from prism_operator.kube.unstored import NoDiffs, NoProgress
from prism_operator.names import GROUP, PLURAL, VERSION
from prism_operator.settings import Settings

CLIENT_WATCH_SECONDS = 300


def make_registry(controller: Controller) -> kopf.OperatorRegistry:
    """What is told goes into the inventory, and the run's key into the queue."""
    registry = kopf.OperatorRegistry()
    inventory = controller.inventory

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_run(event: Any, **_: Any) -> None:
        metrics.note_event(PLURAL)
        raw = event["object"]
        key = key_of(raw)
        if event["type"] == "DELETED":
            inventory.end_run(raw)
            controller.queue.add(key)
        elif inventory.put_run(raw):
            controller.queue.add(key)

    @kopf.on.login(registry=registry)
    async def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return registry


def make_kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Its defaults are made for handlers of its own kind; each of these is a complaint of somebody's (see decisions/0003)."""
    configured = kopf.OperatorSettings()
    configured.posting.enabled = False
    configured.peering.standalone = True
    configured.scanning.disabled = bool(settings.watch_namespaces)
    configured.networking.request_timeout = TIMEOUT_SECONDS
    configured.watching.server_timeout = SERVER_WATCH_SECONDS
    configured.watching.client_timeout = CLIENT_WATCH_SECONDS
    configured.queueing.idle_timeout = 1.0
    configured.persistence.diffbase_storage = NoDiffs()
    configured.persistence.progress_storage = NoProgress()
    return configured
