"""Where the container finds and leaves things: the pod's paths by default, others in tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from prism_trainer.contract.pod import COPIES, PROGRESS_PORT, RAY_ADDRESS, TERMINATION_LOG, WORK_DIR, PodJob
from prism_trainer.hub.fetching import COMMAND

MODULE = "prism_trainer.pod"


@dataclass(frozen=True)
class Places:
    """Paths, addresses, commands and rhythms."""

    work_dir: Path = Path(WORK_DIR)
    """Shared by the stage containers of a pod: results, job files, copies of what lies in object storage."""
    termination_log: Path = Path(TERMINATION_LOG)
    progress_port: int = PROGRESS_PORT
    ray_address: str = RAY_ADDRESS
    cgroup_dir: Path = Path("/sys/fs/cgroup")
    trainer: tuple[str, ...] = (sys.executable, "-m", "prism_trainer")
    """Gets the job file as its argument."""
    ray_nodes: tuple[str, ...] = (sys.executable, "-m", f"{MODULE}.ray_nodes")
    """Gets the address of Ray."""
    hub: tuple[str, ...] = COMMAND
    """Gets what `prism_trainer.hub` gets."""
    preflight: tuple[str, ...] | None = (sys.executable, "-m", "prism_trainer.preflight")
    """Gets the request file; None leaves it out."""
    ray_watch: tuple[str, ...] | None = (sys.executable, "-m", f"{MODULE}.ray_watch")
    """Gets the address of Ray; None leaves it out."""
    lost_worker_seconds: float = 20.0
    """For the trainer to end by itself after one of its workers died."""
    on_cpu: bool = False
    """Ray's GPUs are only counted: there are none."""
    tick_seconds: float = 0.2
    """Between looks at the trainer and at other containers' files."""
    gang_tick_seconds: float = 3.0
    """Between counts of the Ray nodes, each a process of its own."""
    restart_seconds: float = 2.0
    """Before the first warm restart; doubled before each further one, up to a minute."""
    keep_seconds: float = 2.0
    """Between looks for new checkpoints to copy, and for old ones to remove."""
    report_seconds: float = 30.0
    """Between copies of reports to object storage."""

    def copies_dir(self, pod: PodJob) -> Path:
        """Of what is copied for the trainer: in the pod, or where all pods see it if there are several."""
        return self.work_dir if pod.num_nodes == 1 else Path(pod.storage_uri) / COPIES

    def result_file(self, stage: str) -> Path:
        """Where the container of `stage` tells the other containers of the pod how it ended."""
        return self.work_dir / "results" / f"{stage}.json"

    def job_file(self, stage: str) -> Path:
        """What the trainer is started with."""
        return self.work_dir / "jobs" / f"{stage}.json"
