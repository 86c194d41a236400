"""A PrismRun on disk, the command that carries it out, and what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from prism_trainer.checkpoints import read_manifest


@dataclass
class Run:
    """A PrismRun on disk and the command that carries it out."""

    folder: Path
    spec: dict[str, Any]

    @property
    def file(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "prismrun.yaml"
        manifest = {"apiVersion": "prism.dev/v1alpha1", "kind": "PrismRun", "metadata": {"name": "mini"}, "spec": self.spec}
        file.write_text(yaml.safe_dump(manifest))
        return file

    def stage(self, name: str) -> dict[str, Any]:
        return next(stage for stage in self.spec["stages"] if stage.get("name", stage["kind"]) == name)

    def start(self, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "prism_operator", "run", str(self.file), "--plain", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def finish(self, *options: str) -> tuple[int, str]:
        process = self.start(*options)
        output, _ = process.communicate(timeout=1200)
        return process.returncode, output

    def finals(self) -> dict[str, tuple[str, int]]:
        """Digest and attempt of each stage's final checkpoint."""
        found = {}
        for file in sorted((self.folder / "out" / "checkpoints").glob("*/attempt-*/step-*/manifest.json")):
            manifest = read_manifest(file.parent)
            if manifest and manifest.final:
                assert manifest.stage not in found, f"two final checkpoints of {manifest.stage}"
                found[manifest.stage] = (manifest.digest, manifest.provenance.attempt)
        return found

    def stage_processes(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(p.info["cmdline"] or []) and _is_stage(p)]


def _is_stage(process: psutil.Process) -> bool:
    return "prism_trainer" in " ".join(process.info["cmdline"])


def kill(process: psutil.Process | subprocess.Popen) -> None:
    os.kill(process.pid, signal.SIGKILL)


def wait_until(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False
