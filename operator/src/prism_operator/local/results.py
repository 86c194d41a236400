"""`results.json` of the run: the rows of every evaluation stage that is done, and how long each checkpoint took to train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_operator.api import PrismRunStatus
from prism_operator.local.checkpoints import DamagedManifestError, read_manifest
from prism_operator.local.files import write_atomically
from prism_trainer.contract.results import RESULTS


def publish_results(run_dir: Path, status: PrismRunStatus) -> Path | None:
    """Copied from the committed checkpoints; none while there are none."""
    rows: list[Any] = []
    for stage in status.stages:
        if stage.kind == "evaluation" and stage.checkpoint is not None:
            rows += _rows(Path(stage.checkpoint.uri) / "results" / RESULTS)
    if not rows:
        return None
    seconds = _seconds(status)
    path = run_dir / RESULTS
    write_atomically(path, json.dumps([_with_seconds(row, seconds) for row in rows], indent=2, ensure_ascii=False) + "\n")
    return path


def _rows(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    return rows if isinstance(rows, list) else [rows]


def _seconds(status: PrismRunStatus) -> dict[str, float]:
    """Training time by the digest of the stage's checkpoint. It stands beside the digest, not in it, so no measurement can hold it."""
    seconds = {}
    for stage in status.stages:
        if stage.checkpoint is not None and stage.checkpoint.digest is not None:
            seconds[stage.checkpoint.digest] = _training_time(Path(stage.checkpoint.uri))
    return seconds


def _training_time(folder: Path) -> float:
    try:
        return read_manifest(folder).provenance.seconds
    except DamagedManifestError:
        return 0.0


def _with_seconds(row: Any, seconds: Mapping[str, float]) -> Any:
    """After stage and steps, where people look for it; 0 for a plain model. What is no row is left for the report to complain about."""
    if not isinstance(row, dict):
        return row
    first = {key: row[key] for key in ("stage", "steps") if key in row}
    rest = {key: value for key, value in row.items() if key not in (*first, "seconds")}
    return {**first, "seconds": seconds.get(str(row.get("manifest")), 0.0), **rest}
