"""What changed, told: Events to the API server, numbers to Prometheus. Neither may stop a run."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime
from typing import Any

from prism_operator.api import PrismRunStatus
from prism_operator.errors import ClusterError
from prism_operator.kube import metrics
from prism_operator.kube.door import CORE, Door
from prism_operator.kube.inventory import RunKey
from prism_operator.kube.transitions import begun_attempts, ended_attempts, events_between
from prism_operator.names import FIELD_MANAGER
from prism_operator.timestamps import format_time, parse_time

logger = logging.getLogger(__name__)
MAX_EVENT_MESSAGE = 1024


async def tell(door: Door, raw: dict[str, Any], before: PrismRunStatus | None, after: PrismRunStatus, now: datetime) -> None:
    """Events of one pass; the same pass again makes the same Event, whose name is taken then."""
    for event in events_between(before, after):
        metadata = raw["metadata"]
        seed = f"{metadata['uid']}/{event.reason}/{event.message}/{format_time(now)}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {key: raw[key] for key in ("apiVersion", "kind")}
            | {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MAX_EVENT_MESSAGE],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": format_time(now),
            "lastTimestamp": format_time(now),
            "count": 1,
        }
        try:
            await door.create(CORE, metadata["namespace"], "events", body)
        except ClusterError as error:
            logger.info("event %s of %s/%s is not told: %s", event.reason, metadata["namespace"], metadata["name"], error)


def measure(key: RunKey, before: PrismRunStatus | None, after: PrismRunStatus, now: datetime) -> None:
    """The numbers of one pass."""
    for created in begun_attempts(before, after):
        metrics.QUEUE_WAIT.observe(max(0.0, (now - created).total_seconds()))
    for ended in ended_attempts(before, after):
        attempt = ended.attempt
        metrics.ATTEMPTS.labels(ended.stage, attempt.failure_class or "").inc()
        metrics.GPU_SECONDS.labels(ended.stage).inc(attempt.gpu_seconds)
        started, finished = parse_time(attempt.started_at), parse_time(attempt.finished_at)
        if started and finished:
            metrics.STAGE_DURATION.labels(ended.stage, attempt.outcome).observe((finished - started).total_seconds())
        if attempt.failure_class == "Hang":
            metrics.HANGS.labels(ended.stage).inc()
    metrics.RUNS.put(key, after)
