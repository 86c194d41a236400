"""`kubectl prism logs`: what a stage's container writes, followed over restarts, attempts and stages until the run is finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from prism_operator.api import AttemptStatus, PrismRunStatus, StageStatus
from prism_operator.children import Outcome
from prism_operator.errors import NoSuchRunError
from prism_operator.kubectl.door import Door
from prism_operator.kubectl.log_stream import LogStream
from prism_operator.kubectl.refusals import RefusedError, UnreachableError
from prism_operator.kubectl.runs import Run, read_run
from prism_operator.kubectl.storage import log_place
from prism_operator.names import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL, stage_container
from prism_operator.problems import did_you_mean
from prism_operator.status_table import current_stage

POLL_SECONDS = 1.0
READ_AGAIN = (400, 404, 500)
"""The pod went, or its node does not answer: the pod tells which."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for; what is left out is the one under way, or the last."""

    stage: str | None = None
    attempt: int | None = None
    container: str | None = None


@dataclass(frozen=True)
class Source:
    """One attempt's container."""

    stage: str
    attempt: AttemptStatus
    container: str

    @property
    def title(self) -> str:
        """For sentences."""
        return f"attempt {self.attempt.number} of stage '{self.stage}'"


def print_logs(door: Door, name: str, wanted: Wanted) -> int:
    """What there is now."""
    run = read_run(door, name)
    source = find_source(run, wanted)
    if source is None:
        raise NoSuchRunError(_nothing_yet(run, wanted))
    pod = _head_pod(door, run.name, source)
    if pod is None:
        raise NoSuchRunError(_gone(run, source))
    state = _state(pod, source.container)
    if not _has_started(state):
        raise NoSuchRunError(_not_started(run, source, pod, state))
    for text in LogStream(door, pod["metadata"]["name"], source.container).read(follow=False):
        _write(text)
    return 0


def follow_logs(door: Door, name: str, wanted: Wanted) -> int:
    """Attempt after attempt. Ends with the run; with the attempt or the stage, where one was named."""
    told: set[str] = set()
    done: set[tuple[str, int]] = set()
    while True:
        run = _read_patiently(door, name, told)
        source = find_source(run, wanted)
        key = (source.stage, source.attempt.number) if source else None
        if source and key and key not in done:
            if _follow_attempt(door, run, source, told):
                done.add(key)
            elif source.attempt.outcome != Outcome.RUNNING:  # ended before anything of it was seen
                _tell(_gone(run, source), told)
                done.add(key)
        elif _is_over(run.status, wanted, source):
            _tell(run.status.message, told)
            return 0
        else:
            _tell(_why_waiting(run, wanted, source), told)
        time.sleep(POLL_SECONDS)


def find_source(run: Run, wanted: Wanted) -> Source | None:
    """None where there is no such attempt yet; NoSuchRunError where there never will be."""
    status = run.status
    names = [stage["name"] if "name" in stage else stage["kind"] for stage in run.raw["spec"]["stages"]]
    if wanted.stage is not None and wanted.stage not in names:
        raise NoSuchRunError(f"run '{run.name}' has no stage '{wanted.stage}'{did_you_mean(wanted.stage, names)}")
    stage = _stage(status, wanted)
    if stage is None or not stage.attempts:
        return None
    attempts = {attempt.number: attempt for attempt in stage.attempts}
    number = wanted.attempt or max(attempts)
    if number not in attempts:
        if number > max(attempts):
            return None
        raise NoSuchRunError(
            f"the status of '{run.name}' no longer lists attempt {number} of stage '{stage.name}'; its log may still be "
            f"{log_place(run.raw, stage.name, number)}"
        )
    return Source(stage.name, attempts[number], wanted.container or stage_container(stage.name))


def _stage(status: PrismRunStatus, wanted: Wanted) -> StageStatus | None:
    if wanted.stage is None:
        return current_stage(status)
    return next((stage for stage in status.stages if stage.name == wanted.stage), None)


def _follow_attempt(door: Door, run: Run, source: Source, told: set[str]) -> bool:
    """Whether its container was read to its end."""
    pod = _find_pod(door, run, source)
    if pod is None or not _has_started(_state(pod, source.container)):
        if source.attempt.outcome == Outcome.RUNNING:
            _tell(_not_started(run, source, pod, _state(pod, source.container) if pod else {}), told)
        return False
    _tell(f"{source.title}, pod {pod['metadata']['name']}", told)
    log = LogStream(door, pod["metadata"]["name"], source.container)
    text = ""
    while True:
        try:
            for text in log.read(follow=True):
                _write(text)
        except RefusedError as error:
            if error.status not in READ_AGAIN:
                raise
        pod = _find_pod(door, run, source)
        if pod is None or "terminated" in _state(pod, source.container):
            if text and not text.endswith("\n"):
                _write("\n")
            return True
        time.sleep(POLL_SECONDS)


def _find_pod(door: Door, run: Run, source: Source) -> dict[str, Any] | None:
    """Waits for an API server that does not answer: it is not the pod that is gone."""
    while True:
        try:
            return _head_pod(door, run.name, source)
        except UnreachableError:
            time.sleep(POLL_SECONDS)


def _head_pod(door: Door, name: str, source: Source) -> dict[str, Any] | None:
    labels = {RUN_LABEL: name, STAGE_LABEL: source.stage, ATTEMPT_LABEL: str(source.attempt.number), "ray.io/node-type": "head"}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    pods = door.get(f"/api/v1/namespaces/{door.namespace}/pods", labelSelector=selector).get("items") or []
    pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    if pod is not None:
        known = [container["name"] for container in pod["spec"]["containers"]]
        if source.container not in known:
            raise NoSuchRunError(
                f"pod {pod['metadata']['name']} has no container '{source.container}'{did_you_mean(source.container, known)}"
            )
    return pod


def _state(pod: Mapping[str, Any], container: str) -> dict[str, Any]:
    """`waiting`, `running` or `terminated` with what belongs to it; empty while the pod has no node."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return dict(next((each.get("state") or {} for each in statuses if each["name"] == container), {}))


def _has_started(state: Mapping[str, Any]) -> bool:
    return "running" in state or "terminated" in state


def _read_patiently(door: Door, name: str, told: set[str]) -> Run:
    while True:
        try:
            return read_run(door, name)
        except UnreachableError as error:
            _tell(f"{error}; trying again", told)
            time.sleep(POLL_SECONDS)


def _is_over(status: PrismRunStatus, wanted: Wanted, source: Source | None) -> bool:
    """Nothing more can come."""
    if any(condition.type == "Finished" and condition.status == "True" for condition in status.conditions):
        return True
    if source is not None and wanted.attempt is not None:
        return True
    stage = next((stage for stage in status.stages if stage.name == wanted.stage), None)
    return stage is not None and stage.state in ("Succeeded", "Skipped", "Failed")


def _nothing_yet(run: Run, wanted: Wanted) -> str:
    """There is no attempt to read."""
    what = f"attempt {wanted.attempt} of " if wanted.attempt else ""
    what += f"stage '{wanted.stage}'" if wanted.stage else "any stage"
    told = run.status.message or "The operator has not looked at it yet."
    return f"run '{run.name}' has no log of {what} yet. {told}"


def _not_started(run: Run, source: Source, pod: Mapping[str, Any] | None, state: Mapping[str, Any]) -> str:
    """Why, in the operator's words, and the container's."""
    waiting = (state.get("waiting") or {}).get("reason")
    where = f"pod {pod['metadata']['name']}, {waiting or pod['status'].get('phase', 'Pending')}" if pod else "no pod yet"
    return f"container '{source.container}' of {source.title} has not started ({where}). {run.status.message}".rstrip()


def _gone(run: Run, source: Source) -> str:
    attempt = source.attempt
    kind = f" ({attempt.failure_class})" if attempt.failure_class else ""
    told = f": {attempt.message}" if attempt.message else ""
    ended = "" if attempt.outcome == Outcome.RUNNING else f" It ended {attempt.outcome}{kind}{told.rstrip('.')}."
    place = log_place(run.raw, source.stage, attempt.number)
    return f"the pods of {source.title} are gone; its log is {place}.{ended}"


def _why_waiting(run: Run, wanted: Wanted, source: Source | None) -> str:
    """Nothing while the operator has not judged an attempt that was read to its end."""
    if source is None:
        return _nothing_yet(run, wanted)
    if source.attempt.outcome == Outcome.RUNNING:
        return ""
    kind = f" ({source.attempt.failure_class})" if source.attempt.failure_class else ""
    return f"{source.title} ended {source.attempt.outcome}{kind}; waiting for what comes next. {run.status.message}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _tell(sentence: str, told: set[str]) -> None:
    """Once each, beside the log and not in it."""
    if sentence and sentence not in told:
        told.add(sentence)
        typer.echo(f"prism: {sentence}", err=True)
