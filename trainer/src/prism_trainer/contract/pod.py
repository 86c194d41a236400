"""What the operator and a stage's container agree on: the job it is given, where it finds things, where it tells how it goes."""

from __future__ import annotations

from pydantic import Field

from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import FailureClass
from prism_trainer.contract.schema import Frozen

STORAGE_DIR = "/prism/storage"
"""Where a shared volume is mounted; relative paths of the PrismRun start here."""
WORK_DIR = "/prism/work"
"""An emptyDir of the pod: job files, copies of what lies in object storage."""
COPIES = ".copies"
"""Folder of a run's root with what is copied for several pods at once."""
JOBS_DIR = "/prism/jobs"
"""The pod's annotations `job.prism.dev/<stage>` as files `<stage>.json`."""
TERMINATION_LOG = "/dev/termination-log"
PROGRESS_PORT = 8270
"""`/progress` (JSON of `Progress`), `/metrics` (Prometheus), `/healthz`."""
RAY_ADDRESS = "127.0.0.1:6379"
IMAGE = "PRISM_IMAGE"
"""Environment variable with the name of the image a stage runs in; it goes into the provenance of what it commits."""


class PodJob(Frozen):
    """One stage container's work: `python -m prism_trainer.pod /prism/jobs/<stage>.json`."""

    job: StageJob = Field(
        description="`outputUri`, `reportDir` and inputs are paths below /prism/storage, or s3:// addresses that the container copies."
    )
    storage_uri: str = Field(description="The run's root: what `checkpoints/` and `stages/` lie in; a path or an s3:// address.")
    endpoint: str | None = Field(None, description="Of the object storage, where it is not AWS.")
    num_nodes: int = Field(1, ge=1, description="Ray nodes of the gang, the head included; the stage starts when all are there.")
    gang_seconds: int = Field(1800, ge=1, description="How long to wait for them; then the attempt ends as NodeLost.")
    progress_seconds: int = Field(1800, ge=1, description="Without a sign of work for longer, the trainer process hangs.")
    stop_grace_seconds: int = Field(120, ge=0, description="From SIGTERM to the kill; the trainer saves in this time.")
    restarts: dict[FailureClass, int] = Field(
        default_factory=dict, description="How often the trainer is started again in these pods, by class; what is left of the budget."
    )
    keep_intermediate_when_done: int = Field(0, ge=0, description="Resumable checkpoints kept after the final one is committed.")
    after: str | None = Field(
        None, description="Stage whose container in the same pod must succeed first; its checkpoint is the input that has no digest yet."
    )
