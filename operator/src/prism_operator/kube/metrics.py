"""Every metric of the operator, by its Prometheus name. Series of one run go when the run goes."""

from __future__ import annotations

import time

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from prism_operator.kube.run_series import RunSeries

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 115200, 230400)

RUNS = RunSeries()
REGISTRY.register(RUNS)

STAGE_DURATION = Histogram("prism_stage_duration_seconds", "From an attempt's creation to its end.", ["stage", "outcome"], buckets=LONG)
ATTEMPTS = Counter("prism_stage_attempts_total", "Attempts that ended, by failure class; class is empty for success.", ["stage", "class"])
GPU_SECONDS = Counter("prism_gpu_seconds_total", "GPU-seconds of ended attempts.", ["stage"])
QUEUE_WAIT = Histogram("prism_queue_wait_seconds", "From an attempt's creation until its stage runs.", buckets=LONG)
HANGS = Counter("prism_hang_total", "Attempts that showed no sign of work.", ["stage"])

RECONCILE_DURATION = Histogram("prism_reconcile_duration_seconds", "One pass over one run.", buckets=LATENCY)
RECONCILE_ERRORS = Counter("prism_reconcile_errors_total", "Passes that failed and are tried again.", ["reason"])
QUEUE_DEPTH = Gauge("prism_workqueue_depth", "Runs that wait for their pass.")
QUEUE_LATENCY = Histogram("prism_workqueue_wait_seconds", "From an event to the beginning of its pass.", buckets=LATENCY)
EVENT_AGE = Gauge("prism_watch_last_event_age_seconds", "Since the last event of a watch.", ["resource"])
API_REQUESTS = Counter("prism_api_requests_total", "Requests to the API server.", ["verb", "code"])
PROGRESS_REQUESTS = Counter("prism_progress_requests_total", "Requests to stages for their progress.", ["result"])
LOOP_LAG = Gauge("prism_event_loop_lag_seconds", "How late the event loop wakes a sleeper.")


_LAST_EVENT: dict[str, float] = {}


def note_event(resource: str) -> None:
    """A watch has told something just now."""
    if resource not in _LAST_EVENT:
        EVENT_AGE.labels(resource).set_function(lambda: time.monotonic() - _LAST_EVENT[resource])
    _LAST_EVENT[resource] = time.monotonic()
