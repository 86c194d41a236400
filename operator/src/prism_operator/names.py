"""Every derived name: API group, folders, files, condition types, labels, cluster objects. A path is spelled here and nowhere else."""

from __future__ import annotations

import hashlib
import posixpath
import re

GROUP = "prism.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "PrismRun"
PLURAL = "prismruns"

FINALIZER = f"{GROUP}/cleanup"
FIELD_MANAGER = "prism-operator"
RUN_LABEL = f"{GROUP}/run"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"
MANAGED_BY = {"app.kubernetes.io/managed-by": "prism"}
FOLLOWERS_ANNOTATION = f"{GROUP}/followers"
"""Of a RayCluster that several stages share: JSON list of stage, attempt and configuration digest, in order."""
CONFIG_DIGEST_ANNOTATION = f"{GROUP}/config-digest"
HEAD_CONTAINER = "ray-head"
WORKER_CONTAINER = "ray-worker"
STAGE_CONTAINER = "stage"
"""In a podTemplate: every stage's container, whatever its name."""
MAX_CLUSTER_NAME = 50
"""KubeRay takes 53 characters, and cuts the names of pods at 50."""

BASE_MODEL = "model"
"""As the name of an input: the base model. No stage may bear it."""

BASE_DIR_ANNOTATION = f"{GROUP}/base-dir"
"""Where relative paths of a run on one machine start: the directory `prism run` was called in."""

_ACRONYMS = {"sft": "SFT", "rlvr": "RLVR"}
_ATTEMPT = re.compile(r"attempt-([1-9][0-9]*)")


def stage_condition(stage: str) -> str:
    """`SFTSucceeded`, `AlignmentSucceeded`, `RlvrBaselineSucceeded`."""
    name = _ACRONYMS.get(stage) or "".join(part.capitalize() for part in stage.split("-"))
    return f"{name}Succeeded"


def stages_dir(root_uri: str) -> str:
    """What the attempts report: job, progress, metrics, result, log."""
    return posixpath.join(root_uri, "stages")


def checkpoints_uri(root_uri: str) -> str:
    """What the attempts commit."""
    return posixpath.join(root_uri, "checkpoints")


def attempt_name(attempt: int) -> str:
    """The attempt's number is part of every path it writes to, so that an old attempt never writes into a new one's output."""
    return f"attempt-{attempt}"


def attempt_number(name: str) -> int | None:
    """The number in a folder's name; none for a folder that is not an attempt's."""
    match = _ATTEMPT.fullmatch(name)
    return int(match[1]) if match else None


def report_dir(root_uri: str, stage: str, attempt: int) -> str:
    """Folder of progress.json, metrics.jsonl, result.json and, on one machine, job.json, process.json and log.txt."""
    return posixpath.join(stages_dir(root_uri), stage, attempt_name(attempt))


def output_uri(root_uri: str, stage: str, attempt: int) -> str:
    """Folder of the attempt's checkpoints."""
    return posixpath.join(checkpoints_uri(root_uri), stage, attempt_name(attempt))


def cluster_name(run: str, stage: str, attempt: int) -> str:
    """`demo-sft-a1`; a long one keeps its beginning and its end, and a digest keeps it apart from others."""
    name = f"{run}-{stage}-a{attempt}"
    if len(name) <= MAX_CLUSTER_NAME:
        return name
    digest = hashlib.sha256(f"{run}/{stage}".encode()).hexdigest()[:6]
    end = f"-{digest}-a{attempt}"
    return name[: MAX_CLUSTER_NAME - len(end)].rstrip("-") + end


def stage_container(stage: str) -> str:
    """Name of the container a stage runs in."""
    return f"{STAGE_CONTAINER}-{stage}"


def job_annotation(stage: str) -> str:
    """Of the head pod; the stage's container reads it as a file."""
    return f"job.{GROUP}/{stage}"
