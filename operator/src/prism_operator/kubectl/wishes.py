"""`kubectl prism suspend` and `resume`: `spec.suspend`, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import typer

from prism_operator.errors import ClusterError
from prism_operator.kubectl.door import MERGE_PATCH, Door
from prism_operator.kubectl.refusals import UnreachableError
from prism_operator.kubectl.runs import Run, read_run, runs_path, unseen
from prism_operator.reasons import SUSPENDED

POLL_SECONDS = 1.0
DEFAULT_GRACE_SECONDS = 120


def suspend(door: Door, name: str, wait: bool) -> int:
    """The stage saves, its pods go, and nothing is started until `resume`."""
    run = _wish(door, name, True)
    if run.status.is_true(SUSPENDED) and run.is_current:
        typer.echo(f"{run.name} is suspended")
        return 0
    grace = (run.raw["spec"].get("deadlines") or {}).get("stopGraceSeconds", DEFAULT_GRACE_SECONDS)
    typer.echo(f"{run.name} is being suspended: {_under_way(run, grace)}. To go on: kubectl prism resume {run.name}{_option(door)}")
    if not wait:
        return 0
    return _wait(door, run, lambda seen: seen.status.is_true(SUSPENDED), f"{run.name} is suspended; no pod of it is left")


def resume(door: Door, name: str, wait: bool) -> int:
    """It goes on from its last checkpoint."""
    run = _wish(door, name, False)
    if run.is_current and run.status.summary == "Running":
        typer.echo(f"{run.name} is not suspended, and runs")
        return 0
    typer.echo(f"{run.name} goes on from its last checkpoint. To watch it: kubectl prism status {run.name} -w{_option(door)}")
    if not wait:
        return 0
    return _wait(door, run, lambda seen: seen.status.summary == "Running", f"{run.name} runs")


def _wish(door: Door, name: str, suspended: bool) -> Run:
    """As it is then. Nothing is written where it is so already."""
    run = read_run(door, name)
    if run.is_finished:
        verb = "suspend" if suspended else "resume; kubectl prism retry makes a new run from one that failed"
        raise ClusterError(f"run '{run.name}' is finished ({run.status.summary}): there is nothing to {verb}")
    if "deletionTimestamp" in run.raw["metadata"]:
        raise ClusterError(f"run '{run.name}' is being deleted: its stage saves and stops anyway")
    if bool(run.raw["spec"].get("suspend")) == suspended:
        return run
    return Run(door.send("PATCH", runs_path(door.namespace, run.name), {"spec": {"suspend": suspended}}, MERGE_PATCH))


def _under_way(run: Run, grace: int) -> str:
    live = [(stage.name, attempt.number) for stage in run.status.stages for attempt in stage.attempts if attempt.outcome == "Running"]
    if not live:
        return "no stage is under way, and none will be started"
    stage, number = live[-1]
    return f"attempt {number} of stage '{stage}' has {grace} s to save a checkpoint, then its pods go"


def _wait(door: Door, run: Run, arrived: Callable[[Run], bool], sentence: str) -> int:
    """Until the operator says so of the spec as it is now; a run that ends before has gone another way."""
    told = ""
    while True:
        if run.is_finished:
            raise ClusterError(f"run '{run.name}' finished meanwhile ({run.status.summary}): {run.status.message}")
        if run.is_current and arrived(run):
            typer.echo(sentence)
            return 0
        sentence_now = run.status.message if run.is_current else unseen(run, datetime.now(UTC))
        if sentence_now not in ("", told):
            told = sentence_now
            typer.echo(told)
        time.sleep(POLL_SECONDS)
        try:
            run = read_run(door, run.name)
        except UnreachableError as error:
            typer.echo(f"prism: {error}; trying again", err=True)


def _option(door: Door) -> str:
    return "" if door.namespace == "default" else f" -n {door.namespace}"
