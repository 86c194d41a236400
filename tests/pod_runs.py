"""A stage container without its container: a job file, a folder for each mount, the stand-in stage for a trainer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from prism_trainer.checkpoints import commit_checkpoint
from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef, FileEntry, Provenance
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.pod import PodJob
from prism_trainer.contract.report import StageResult
from prism_trainer.pod.__main__ import carry_out
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop

TESTS = Path(__file__).parent
DIGEST = "sha256:" + "1" * 64
OTHER_DIGEST = "sha256:" + "2" * 64
NO_RAY = (sys.executable, "-c", "import sys; sys.exit(3)")


def make_manifest(files: tuple[FileEntry, ...], **fields: Any) -> CheckpointManifest:
    """Of stage sft of run demo, an intermediate at step 1, unless more is said."""
    given = {"run": "demo", "stage": "sft", "kind": "sft", "step": 1, "final": False, "config_digest": DIGEST, "seed": 0}
    provenance = Provenance(attempt=1, created_at="2026-01-01T00:00:00Z", seconds=1.0, versions={"torch": "2.11.0"})
    return CheckpointManifest(**{**given, "files": files, "provenance": provenance, **fields})


def commit(folder: Path, content: bytes = b"weights", **fields: Any) -> CheckpointRef:
    """A checkpoint with two payload files."""

    def write(part: Path) -> None:
        (part / "model.safetensors").write_bytes(content)
        (part / "config.json").write_text("{}")

    return commit_checkpoint(folder, {"policy": write}, lambda files: make_manifest(files, **fields))


STARTED: list[subprocess.Popen[str]] = []
"""What a test started; what it leaves behind when it fails is ended after it, and never met by another test."""


def end_started() -> None:
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            for one in (psutil.Process(process.pid), *children):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        process.communicate()


@dataclass
class PodRun:
    """One pod. `root` is the run's root: a path, or an s3:// address."""

    folder: Path
    root: str = ""
    endpoint: str | None = None
    fast: dict[str, Any] = field(default_factory=lambda: {"tick_seconds": 0.02, "keep_seconds": 0.05, "restart_seconds": 0.02})

    def __post_init__(self) -> None:
        self.root = self.root or str(self.folder / "storage/demo")

    def job(self, attempt: int = 1, stage: str = "sft", **fields: Any) -> StageJob:
        given: dict[str, Any] = {
            **{"run": "demo", "stage": stage, "attempt": attempt, "engine": "local", "seed": 0},
            **{"config": SftConfig(), "config_digest": DIGEST, "model": "unused", "base_url": "unused"},
            "output_uri": f"{self.root}/checkpoints/{stage}/attempt-{attempt}",
            "report_dir": f"{self.root}/stages/{stage}/attempt-{attempt}",
        }
        return StageJob(**{k: v for k, v in {**given, **fields}.items() if k in StageJob.model_fields})

    def write(self, job: StageJob | None = None, behaviour: dict[str, Any] | None = None, **pod: Any) -> Path:
        """The job file; `behaviour` is the stand-in's."""
        job = job or self.job()
        template = make_manifest((FileEntry(path="policy/x", size=0, sha256="0" * 64),)).model_dump(mode="json")
        file = self.folder / f"{job.stage}.json"
        (self.folder / f"behaviour-{job.stage}.json").write_text(json.dumps({"*": behaviour or {}, "manifest": template}))
        value = PodJob(job=job, storage_uri=self.root, endpoint=self.endpoint, **pod)
        file.write_text(value.model_dump_json(exclude_none=True))
        return file

    def places(self, stage: str = "sft", **other: Any) -> Places:
        """Without ray and preflight, and on no port, unless more is said."""
        stand_in = (sys.executable, str(TESTS / "stand_in_stage.py"), str(self.folder / f"behaviour-{stage}.json"))
        given = {"work_dir": self.folder / "work", "termination_log": self.folder / f"termination-{stage}", "progress_port": 0}
        given |= {"cgroup_dir": self.folder / "cgroup", "trainer": stand_in, "ray_nodes": NO_RAY, "preflight": None, "ray_watch": None}
        return Places(**{**given, **self.fast, **other})

    def run(self, file: Path, stop: Stop | None = None, **places: Any) -> tuple[int, StageResult]:
        """In this process: exit code and the termination message."""
        logging.getLogger("prism_trainer.pod").setLevel(logging.INFO)
        code = carry_out(file, self.places(file.stem, **places), stop or Stop())
        return code, self.message(file.stem)

    def start(self, file: Path, **places: Any) -> subprocess.Popen[str]:
        """In a process of its own, to be sent signals."""
        value = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.places(file.stem, **places)).items()}
        command = [sys.executable, str(TESTS / "pod_runner.py"), json.dumps(value), str(file)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        STARTED.append(process)
        return process

    def message(self, stage: str = "sft") -> StageResult:
        return StageResult.model_validate_json((self.folder / f"termination-{stage}").read_bytes())

    def steps(self, attempt: int = 1, stage: str = "sft") -> list[int]:
        """Steps the trainers of an attempt took."""
        file = self.local / f"stages/{stage}/attempt-{attempt}/steps.txt"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def path(self, below: str) -> Path:
        return Path(self.root) / below

    @property
    def local(self) -> Path:
        """The run's root as the trainer sees it: object storage is written to a folder first."""
        return self.folder / "work/s3" / self.root.removeprefix("s3://") if self.root.startswith("s3://") else Path(self.root)


def ask_to_stop(process: subprocess.Popen[str]) -> tuple[int, str]:
    """SIGTERM; its exit code and output."""
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output
