"""PrismRuns in real pods: a namespace with a volume, an operator that looks after it, and the digits example made small."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.harness.cluster import Cluster

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "prismruns.prism.dev.yaml"
CLAIM = "prism-runs"

SFT = {
    "kind": "sft",
    "data": [{"uri": "digits/data/curated.json"}],
    "config": {
        "maxSteps": 120,
        "batchSize": 16,
        "microBatchSize": 16,
        "saveEvery": 5,
        "freezeVision": False,
        "freezeProjector": False,
        "optimizer": {"learningRate": 2.0e-3},
    },
}
RLVR = {
    "kind": "rlvr",
    "data": [{"uri": "digits/data/rlvr.parquet"}],
    "config": {"steps": 1, "promptsPerStep": 2, "microBatchSize": 8, "rollout": {"groupSize": 2, "maxResponseTokens": 16}},
}
EVALUATION = {
    "kind": "evaluation",
    "data": [{"uri": "digits/data/test.parquet"}],
    "config": {"seeds": [0], "batchSize": 8, "sampling": {"maxResponseTokens": 16}},
}
SMALL = {"cpu": "10m", "memory": "128Mi"}
ROOM_FOR_MANY = {
    "spec": {"containers": [{"name": "ray-head", "resources": {"requests": SMALL}}, {"name": "stage", "resources": {"requests": SMALL}}]}
}
"""Requests only decide where a pod fits; the test node is small."""


@dataclass
class Place:
    """A namespace with storage."""

    cluster: Cluster
    namespace: str
    folder: Path
    """The volume's folder on this machine."""
    started: list[str] = field(default_factory=list)

    def apply(self, name: str, *stages: dict[str, Any], **spec: Any) -> None:
        """A run on the volume."""
        base = {
            "model": {"uri": "digits/base"},
            "systemPrompt": "Answer as caption, think, answer.",
            "storage": {"pvc": {"claimName": CLAIM}},
            "deadlines": {"stopGraceSeconds": 60},
            "podTemplate": ROOM_FOR_MANY,
        }
        self.apply_object(name, {**base, **spec, "stages": [copy.deepcopy(stage) for stage in stages]})

    def apply_object(self, name: str, spec: dict[str, Any]) -> None:
        self.started.append(name)
        document = {"apiVersion": "prism.dev/v1alpha1", "kind": "PrismRun", "metadata": {"name": name}, "spec": spec}
        self.cluster.apply(document, self.namespace)

    def patch(self, name: str, **spec: Any) -> None:
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", "prismrun", name, "--type=merge", f"--patch={patch}")

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, **options)

    def run(self, name: str) -> dict[str, Any]:
        found = self.cluster.get("prismrun", name, self.namespace)
        assert found is not None, f"PrismRun {name} is gone"
        return found

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.run(name).get("status") or {})

    def condition(self, name: str, type_: str) -> dict[str, Any]:
        found = [c for c in self.status(name).get("conditions", []) if c["type"] == type_]
        return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}

    def stage(self, name: str, stage: str = "sft") -> dict[str, Any]:
        return next((s for s in self.status(name).get("stages", []) if s["name"] == stage), {"attempts": []})

    def pods(self, name: str) -> list[dict[str, Any]]:
        return self.cluster.list("pods", self.namespace, f"prism.dev/run={name}")

    def head(self, name: str) -> str:
        """The head pod of the attempt that runs."""
        heads = [pod["metadata"]["name"] for pod in self.pods(name) if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        assert len(heads) == 1, heads
        return str(heads[0])

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 300.0) -> Any:
        """What the condition came to; the story of every run where it came to nothing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.5)
        stories = {name: self.status(name).get("message") for name in self.started if self.cluster.get("prismrun", name, self.namespace)}
        raise AssertionError(f"within {seconds:.0f} s not so: {what}; {stories}")

    def wait_for_step(self, name: str, step: int, attempt: int = 1, stage: str = "sft") -> None:
        """An intermediate checkpoint of that step or a later one is committed."""
        folder = self.folder / name / "checkpoints" / stage / f"attempt-{attempt}"
        self.wait(
            f"{name} has step {step} of attempt {attempt}",
            lambda: any(int(path.parent.name.split("-")[1]) >= step for path in folder.glob("step-*/manifest.json")),
        )

    def wait_for_end(self, name: str, summary: str = "Succeeded", seconds: float = 600) -> dict[str, Any]:
        """Finished, with nothing left of it; the status."""
        self.wait(f"{name} is finished", lambda: self.condition(name, "Finished")["status"] == "True", seconds)
        status = self.status(name)
        assert status["summary"] == summary, status["message"]
        self.wait(f"nothing is left of {name}", lambda: not self.pods(name) and not self.clusters(name), 120)
        return status

    def clusters(self, name: str) -> list[dict[str, Any]]:
        return self.cluster.list("rayclusters", self.namespace, f"prism.dev/run={name}")

    def manifest(self, uri: str) -> dict[str, Any]:
        """Of a checkpoint on the volume."""
        return dict(json.loads((self.path(uri) / "manifest.json").read_text()))

    def weights(self, name: str) -> str:
        """sha256 of the policy's weights in the run's last checkpoint; its digest holds the run's name too."""
        files = self.manifest(self.status(name)["checkpoint"]["uri"])["files"]
        return next(str(file["sha256"]) for file in files if file["path"] == "policy/model.safetensors")

    def path(self, uri: str) -> Path:
        """Where the pods' /prism/storage/... lies on this machine."""
        return self.folder / uri.removeprefix("/prism/storage/")


def bring_digits(folder: Path, small: Path) -> None:
    """Model and data of the example onto a volume, owned by the pods' user."""
    shutil.copytree(small, folder / "digits")
    for path in (folder / "digits", *(folder / "digits").rglob("*")):
        os.chown(path, 1000, 1000)


@contextmanager
def operator_on(cluster: Cluster, namespace: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The operator as a process of this machine, for one namespace."""
    settings = {
        "PRISM_WATCH_NAMESPACES": namespace,
        "PRISM_STAGE_IMAGE": cluster.trainer_image,
        "PRISM_LOG_FORMAT": "text",
        "PRISM_METRICS_PORT": "0",
        "PRISM_HEALTH_PORT": "0",
        "PRISM_PROGRESS_SECONDS": "2",
        **environment,
    }
    command = [sys.executable, "-m", "prism_operator", "operator"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env={**os.environ, **cluster.environment, **settings}, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
