"""A folder with a PrismRun of stand-in stages: run here or in a process of its own, then looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from builders import RunBuilder, make_manifest
from prism_operator.local.runner import Ended
from stand_in_runner import run_stand_in

ROW_FOR_ANY_STAGE = {
    "messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}],
    "prompt": [{"role": "user", "content": "How many?"}],
    "teacher_response": "<caption>two</caption>\n<think>I count.</think>\n<answer>2</answer>",
    "reward_model": {"ground_truth": "2"},
}
RUNNER = Path(__file__).with_name("stand_in_runner.py")


def wait_for(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `holds` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"did not come true within {seconds} s")


@dataclass
class LocalRun:
    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "runs/demo"

    def write(self, run: RunBuilder, **behaviour: Any) -> LocalRun:
        """Behaviours by stage, or stage and attempt with `__`: sft__1={"die_at": 2}."""
        (self.folder / "base").mkdir(exist_ok=True)
        (self.folder / "base/config.json").write_text("{}")
        for stage in run.raw["spec"]["stages"]:
            for source in stage["data"]:
                (self.folder / source["uri"]).write_text(json.dumps(ROW_FOR_ANY_STAGE) + "\n")
        (self.folder / "run.yaml").write_text(yaml.safe_dump(run.raw))
        named = {key.replace("__", "/").replace("every", "*"): value for key, value in behaviour.items()}
        template = make_manifest("sft", 1, 0, False, "").model_dump(mode="json")
        (self.folder / "behaviour.json").write_text(json.dumps({**named, "manifest": template}))
        return self

    def run(self, redo: bool = False) -> Ended:
        return run_stand_in(self.folder / "run.yaml", self.folder / "behaviour.json", redo)

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(RUNNER), str(self.folder / "run.yaml"), str(self.folder / "behaviour.json"), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.run_dir / "status.json").read_text())["status"])

    def steps(self, stage: str, attempt: int) -> list[int]:
        """Steps the attempt took."""
        file = self.run_dir / f"stages/{stage}/attempt-{attempt}/steps.txt"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def attempts(self, stage: str) -> list[str]:
        folder = self.run_dir / "stages" / stage
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def process(self, stage: str, attempt: int = 1) -> dict[str, Any]:
        """process.json, once it is there."""
        file = self.run_dir / f"stages/{stage}/attempt-{attempt}/process.json"
        wait_for(file.exists)
        return dict(json.loads(file.read_text()))

    def kill(self, stage: str, attempt: int = 1, number: int = signal.SIGKILL) -> None:
        os.kill(self.process(stage, attempt)["pid"], number)

    def manifests(self) -> dict[str, list[dict[str, Any]]]:
        """Committed final manifests by stage."""
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self.run_dir.glob("checkpoints/*/*/*/manifest.json")):
            manifest = json.loads(path.read_text())
            if manifest["final"]:
                found.setdefault(manifest["stage"], []).append(manifest)
        return found

    def processes(self) -> list[int]:
        """Everything alive that was started with a path in this folder."""
        return [p.pid for p in psutil.process_iter() if p.pid != os.getpid() and self._is_ours(p)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and any(str(self.folder) in part for part in process.cmdline())
        except psutil.Error:
            return False
