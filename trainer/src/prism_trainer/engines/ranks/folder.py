"""The folder that driver and ranks of one attempt share, beside its checkpoints: on the volume that every node sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prism_trainer.contract.job import StageJob

JOB = "job.json"


@contextmanager
def scratch_folder(job: StageJob) -> Iterator[Path]:
    """Empty but for the job at the beginning, gone at the end: not a checkpoint."""
    folder = Path(job.output_uri).absolute() / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / JOB).write_text(job.model_dump_json(exclude_none=True))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_job(folder: Path) -> StageJob:
    """As the driver wrote it."""
    return StageJob.model_validate_json((folder / JOB).read_bytes())
