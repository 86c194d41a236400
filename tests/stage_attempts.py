"""One stage carried out in this process: the job of a finished run, changed, and stopped where asked."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from mini_runs import Run
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.local.models import use_threads
from prism_trainer.errors import Stopped
from prism_trainer.reporting import Reporter


class StopsAfter(Reporter):
    """A reporter that is asked to stop after a step."""

    def __init__(self, folder: Path, job: StageJob, last_step: int) -> None:
        super().__init__(folder, job.stage, job.attempt)
        self._last_step = last_step

    def step(self, step: int, metrics: dict[str, float]) -> None:
        super().step(step, metrics)
        if step == self._last_step:
            self._stop.set()


def job_of(run: Run, stage: str, folder: Path, config: dict[str, Any] | None = None, **fields: Any) -> StageJob:
    """The job of the run's first attempt at `stage`, with other values in its configuration, writing into `folder`."""
    raw = json.loads((run.folder / "out" / "stages" / stage / "attempt-1" / "job.json").read_text())
    raw["config"] |= config or {}
    raw |= {"outputUri": str(folder / "checkpoints"), "reportDir": str(folder / "report")}
    return StageJob.model_validate(raw).model_copy(update=fields)


def run_stage(job: StageJob, last_step: int = -1) -> CheckpointRef:
    """To the end, or until after `last_step`; with as many threads as its process would have, because sums depend on them."""
    use_threads(job.threads)
    reporter = StopsAfter(Path(job.report_dir), job, last_step)
    module = importlib.import_module(f"prism_trainer.stages.{job.config.kind}")
    try:
        return module.run(job, job.config, reporter)
    except Stopped as stopped:
        assert stopped.checkpoint is not None
        return stopped.checkpoint


def metrics_of(job: StageJob) -> list[dict[str, float]]:
    """Metrics step by step."""
    return [json.loads(line)["metrics"] for line in (Path(job.report_dir) / "metrics.jsonl").read_text().splitlines()]


def samples_of(job: StageJob, step: int) -> list[dict[str, Any]]:
    """The dump of a step."""
    return [json.loads(line) for line in (Path(job.report_dir) / "samples" / f"step-{step:06d}.jsonl").read_text().splitlines()]
