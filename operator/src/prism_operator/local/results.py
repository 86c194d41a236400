"""`results.json` of the run: the rows of every evaluation stage that is done."""

from __future__ import annotations

import json
from pathlib import Path

from prism_operator.api import PrismRunStatus
from prism_operator.local.files import write_atomically
from prism_trainer.contract.results import RESULTS


def publish_results(run_dir: Path, status: PrismRunStatus) -> Path | None:
    """Copied from the committed checkpoints; none while there are none."""
    rows = []
    for stage in status.stages:
        if stage.kind == "evaluation" and stage.checkpoint is not None:
            rows += _rows(Path(stage.checkpoint.uri) / "results" / RESULTS)
    if not rows:
        return None
    path = run_dir / RESULTS
    write_atomically(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return path


def _rows(path: Path) -> list[object]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    return rows if isinstance(rows, list) else [rows]
