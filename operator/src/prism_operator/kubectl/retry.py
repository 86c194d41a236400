"""`kubectl prism retry`: a new run from a failed one, which takes over every stage that was verified.

A finished run is never opened again, so what it was and how it went stays on record.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer
import yaml

from prism_operator.errors import ClusterError, PrismError
from prism_operator.kubectl.door import Door
from prism_operator.kubectl.refusals import RefusedError
from prism_operator.kubectl.runs import Run, read_run, runs_path
from prism_operator.names import API_VERSION, GROUP, KIND

MAX_NAME = 36
RETRY_OF = f"{GROUP}/retry-of"
"""Annotation: the first run of the line, by whose name its retries are counted."""
_OTHERS = ("kubectl.kubernetes.io/last-applied-configuration",)
"""Annotations that speak of the old object."""


class CannotRetryError(PrismError):
    """There is nothing to do again."""


@dataclass(frozen=True)
class Retry:
    """The new object, and what it takes over."""

    document: dict[str, Any]
    taken: tuple[str, ...]
    anew: tuple[str, ...]


def retry(door: Door, name: str, new_name: str | None, dry_run: bool) -> int:
    """Creates it, or prints it."""
    run = read_run(door, name)
    require_failed(run)
    if dry_run:
        typer.echo(
            yaml.safe_dump(make_retry(run, new_name or next(next_names(run))).document, sort_keys=False, allow_unicode=True), nl=False
        )
        return 0
    made = _create(door, run, new_name)
    for line in _told(run, made, door):
        typer.echo(line)
    return 0


def require_failed(run: Run) -> None:
    """A sentence for every other state."""
    if not run.is_finished:
        refused = f"; correct the file and apply it again: {run.status.message}" if run.status.summary == "Refused" else ""
        raise CannotRetryError(
            f"run '{run.name}' has not finished ({run.status.summary}): failed attempts are tried again by themselves, and "
            f"`kubectl prism resume` goes on with a suspended run{refused}"
        )
    if run.status.summary != "Failed":
        raise CannotRetryError(f"run '{run.name}' succeeded: to do it again, apply its file under another metadata.name")


def make_retry(run: Run, name: str) -> Retry:
    """Pure. A stage that was verified is skipped with its checkpoint, by digest; the others start anew."""
    spec = copy.deepcopy(run.raw["spec"])
    spec.pop("suspend", None)
    verified = {stage.name: stage.checkpoint for stage in run.status.stages if stage.state == "Succeeded" and stage.checkpoint}
    taken, anew = [], []
    for stage in spec["stages"]:
        stage_name = stage.get("name") or stage["kind"]
        checkpoint = verified.get(stage_name)
        if checkpoint is not None:
            stage["checkpoint"] = {"uri": checkpoint.uri} | ({"digest": checkpoint.digest} if checkpoint.digest else {})
            taken.append(stage_name)
        elif not stage.get("checkpoint"):
            anew.append(stage_name)
    return Retry({"apiVersion": API_VERSION, "kind": KIND, "metadata": _metadata(run, name), "spec": spec}, tuple(taken), tuple(anew))


def next_names(run: Run) -> Iterator[str]:
    """`demo-2`, `demo-3` ... of `demo`; of `demo-2`, itself a retry of `demo`, `demo-3` and on."""
    first = (run.raw["metadata"].get("annotations") or {}).get(RETRY_OF, "")
    match = re.fullmatch(r"(?P<base>.+)-(?P<number>\d+)", run.name)
    counted = bool(first and match and first.startswith(match["base"]))
    base, start = (match["base"], int(match["number"]) + 1) if counted and match else (run.name, 2)
    for number in itertools.count(start):
        end = f"-{number}"
        yield base[: MAX_NAME - len(end)].rstrip("-") + end


def _metadata(run: Run, name: str) -> dict[str, Any]:
    old = run.raw["metadata"]
    annotations = {key: value for key, value in (old.get("annotations") or {}).items() if key not in _OTHERS}
    metadata = {"name": name, "namespace": run.namespace, "annotations": {RETRY_OF: run.name, **annotations}}
    return metadata | ({"labels": old["labels"]} if old.get("labels") else {})


def _create(door: Door, run: Run, new_name: str | None) -> Retry:
    """Under the first name that is free, or the one that was given."""
    for name in [new_name] if new_name else itertools.islice(next_names(run), 100):
        made = make_retry(run, name)
        try:
            door.send("POST", runs_path(door.namespace), made.document, fieldManager="kubectl-prism", fieldValidation="Strict")
        except RefusedError as error:
            if error.reason != "AlreadyExists":
                raise
        else:
            return made
    raise ClusterError(f"there is a run '{new_name or name}' already; give another --name")


def _told(run: Run, made: Retry, door: Door) -> Iterator[str]:
    name = made.document["metadata"]["name"]
    yield f"{name} is made from {run.name}"
    for stage in run.status.stages:
        if stage.name in made.taken and stage.checkpoint:
            yield f"  {stage.name}: taken over, {stage.checkpoint.uri} (step {stage.checkpoint.step})"
        elif stage.name in made.anew:
            yield f"  {stage.name}: starts anew"
    failed = next((stage for stage in run.status.stages if stage.state == "Failed" and stage.attempts), None)
    if failed and failed.attempts[-1].failure_class == "UserError":
        yield (
            f"Stage '{failed.name}' failed as a UserError: the same again may fail the same. To correct something first: "
            f"kubectl delete prismrun {name}, then kubectl prism retry {run.name} --dry-run > {name}.yaml"
        )
    place = "" if door.namespace == "default" else f" -n {door.namespace}"
    yield f"To watch it: kubectl prism status {name} -w{place}"
