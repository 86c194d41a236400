"""The PrismRuns of these tests, and what of a status two runs of the same must have in common."""

from __future__ import annotations

import json
from typing import Any

from cluster.faults.api import Object

FIRST, SECOND = "sft", "rlvr"
TIMES = ("At", "Time")
"""Ends of the names of fields that differ between two runs."""


def make_run(*stages: Object, name: str = "demo", **spec: Any) -> Object:
    """On object storage, for which nobody needs a volume. By default sft, then rlvr."""
    return {
        "apiVersion": "prism.dev/v1alpha1",
        "kind": "PrismRun",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "org/model"},
            "storage": {"objectStore": {"uri": "s3://bucket"}},
            "stages": list(stages) or [stage(FIRST), stage(SECOND)],
            **spec,
        },
    }


def stage(kind: str, **fields: Any) -> Object:
    return {"kind": kind, "data": [{"uri": "data/train.jsonl"}], **fields}


def story(run: Object) -> Object:
    """The status apart from times."""
    told: Object = _timeless(run["status"])
    return told


def condition(run: Object | None, kind: str) -> Object:
    """Empty where there is none yet."""
    conditions = ((run or {}).get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})


def is_finished(run: Object | None) -> bool:
    return condition(run, "Finished").get("status") == "True"


def attempts(run: Object, stage: str) -> list[Object]:
    return next((each.get("attempts", []) for each in run["status"].get("stages", []) if each["name"] == stage), [])


def outcomes(run: Object, stage: str) -> list[str]:
    """Of its attempts in order: `Succeeded`, `Failed NodeLost`, ..."""
    return [" ".join(part for part in (each["outcome"], each.get("failureClass")) if part) for each in attempts(run, stage)]


def sentence(run: Object | None) -> str:
    """For a failing test."""
    if run is None:
        return "no run"
    status = run.get("status") or {}
    names = ("summary", "reason", "message", "stage", "attempt")
    tried = {each["name"]: outcomes(run, each["name"]) for each in status.get("stages", [])}
    return json.dumps({**{name: status.get(name) for name in names}, "attempts": tried})


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if not key.endswith(TIMES)}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
