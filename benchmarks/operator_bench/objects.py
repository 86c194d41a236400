"""What the benchmark applies: PrismRuns of two stages, the RayJob beside them, and the last words of a stage."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.report import StageResult

IMAGE = "prism-trainer-cpu:0.1.0"
FIRST, SECOND = "sft", "rlvr"


def prismrun(name: str, suspend: bool = False) -> dict[str, Any]:
    """About 2 KB, as the digits example: sft, then rlvr."""
    return {
        "apiVersion": "prism.dev/v1alpha1",
        "kind": "PrismRun",
        "metadata": {"name": name},
        "spec": {
            "seed": 0,
            "suspend": suspend,
            "engine": "local",
            "model": {"uri": "digits/base"},
            "systemPrompt": "Answer as caption, think, answer.",
            "storage": {"pvc": {"claimName": "prism-runs"}},
            "stages": [
                {
                    "kind": "sft",
                    "data": [{"uri": "digits/data/curated.json", "weight": 1}, {"uri": "digits/data/public.json", "weight": 0.8}],
                    "config": {
                        "maxSteps": 400,
                        "batchSize": 16,
                        "microBatchSize": 16,
                        "saveEvery": 100,
                        "freezeVision": False,
                        "freezeProjector": False,
                        "optimizer": {"learningRate": 7.0e-4, "beta2": 0.98, "weightDecay": 0.01, "warmupRatio": 0.05},
                    },
                },
                {
                    "kind": "rlvr",
                    "data": [{"uri": "digits/data/rlvr.parquet"}],
                    "config": {
                        "steps": 8,
                        "promptsPerStep": 8,
                        "microBatchSize": 32,
                        "saveEvery": 4,
                        "rollout": {"groupSize": 8, "maxResponseTokens": 56},
                        "optimizer": {"learningRate": 5.0e-5},
                    },
                },
            ],
        },
    }


def rayjob(name: str) -> dict[str, Any]:
    """A cluster of one head, as a stage has."""
    container = {"name": "ray-head", "image": IMAGE, "resources": {"requests": {"cpu": "100m", "memory": "768Mi"}}}
    head = {"rayStartParams": {}, "template": {"spec": {"containers": [container]}}}
    cluster = {"rayVersion": "2.60.0", "headGroupSpec": head, "workerGroupSpecs": []}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {"entrypoint": "true", "rayClusterSpec": cluster},
    }


def ended_stage(run: str, stage: str, node: str = "kwok") -> dict[str, Any]:
    """Status patch of a head pod whose stage succeeded, as the kubelet writes it: Ray goes on, the pod is not ready any more."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    running = {
        "name": "ray-head",
        "image": IMAGE,
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now, "message": last_words(run, stage)}
    ended = {
        "name": f"stage-{stage}",
        "image": IMAGE,
        "imageID": f"sha256:{'0' * 64}",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": terminated},
    }
    unready = [
        {"type": kind, "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": now}
        for kind in ("Ready", "ContainersReady")
    ]
    return {"status": {"conditions": unready, "containerStatuses": [running, ended]}}


def last_words(run: str, stage: str) -> str:
    """A termination message with a checkpoint that nobody has trained."""
    digest = f"sha256:{hashlib.sha256(f'{run}/{stage}'.encode()).hexdigest()}"
    uri = f"/prism/storage/{run}/checkpoints/{stage}/attempt-1/step-000400"
    checkpoint = CheckpointRef(stage=stage, uri=uri, digest=digest, step=400, revision=None)
    metrics = {"loss": 0.4321, "accuracy": 0.875}
    versions = {"torch": "2.11.0", "transformers": "5.9.0", "prism-trainer": "0.1.0"}
    return StageResult(
        stage=stage, attempt=1, outcome="Succeeded", checkpoint=checkpoint, seconds=12.5, metrics=metrics, versions=versions
    ).to_message()
