"""A stage of engine verl carried out in this process, attempt by attempt, beside engine local's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import DiscriminatorConfig, SftConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.reporting import Reporter


@dataclass
class Stage:
    """Each attempt has a folder of its own."""

    folder: Path
    policy: Path
    data: Path
    config: SftConfig | DiscriminatorConfig

    def job(self, attempt: int = 1, resume_from: CheckpointRef | None = None, engine: str = "verl") -> StageJob:
        folder = self.folder / f"{engine}-{attempt}"
        return StageJob(
            run="mini", stage=self.config.kind, attempt=attempt, engine=engine, seed=3, config=self.config,
            config_digest="sha256:" + "1" * 64, inputs={"policy": CheckpointRef(stage="model", uri=str(self.policy))},
            data=(DataSource(uri=str(self.data)),), output_uri=str(folder / "checkpoints"), resume_from=resume_from,
            report_dir=str(folder / "report"),
        )  # fmt: skip

    def reporter(self, job: StageJob) -> Reporter:
        return Reporter(Path(job.report_dir), job.stage, job.attempt)

    def lines(self, job: StageJob) -> list[dict[str, Any]]:
        text = (Path(job.report_dir) / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


class StoppedAfter:
    """A reporter that is asked to stop when `step` steps are done."""

    def __init__(self, reporter: Reporter, step: int) -> None:
        self._reporter, self._step = reporter, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)

    @property
    def stop_requested(self) -> bool:
        return self._reporter.steps_done >= self._step
