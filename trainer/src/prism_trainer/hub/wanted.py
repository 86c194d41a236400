"""What is fetched from the hub: which files, and where a person names it, for the sentences."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

UNREACHABLE = 4
"""Exit code: the same may go well later."""
REFUSED = 1
"""Exit code: it will not."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Kind:
    """`repo_type` as the hub has it; `uri` and `revision` are the fields of a PrismRun to correct."""

    noun: str
    repo_type: str
    uri: str
    revision: str
    ignored: tuple[str, ...]
    missing: str
    """Where it was looked for."""
    way_out: str
    """For where the hub does not answer."""


KINDS = {
    "model": Kind(
        noun="model",
        repo_type="model",
        uri="spec.model.uri",
        revision="spec.model.revision",
        ignored=("original/*", "onnx/*", "openvino/*"),
        missing="neither on the storage nor on the hub",
        way_out="put the model on the storage or allow the pod to reach the hub",
    ),
    "data": Kind(
        noun="data set",
        repo_type="dataset",
        uri="data[].uri (a folder is written ./ORG/NAME)",
        revision="data[].revision",
        ignored=("dataset_info*.json", ".*"),
        missing="on the hub",
        way_out="allow this machine to reach it, or give a local path",
    ),
    "benchmark": Kind(
        noun="data set",
        repo_type="dataset",
        uri="config.benchmarks[].uri",
        revision="config.benchmarks[].revision",
        ignored=(),
        missing="on the hub",
        way_out="put it into a folder and name that in config.benchmarks[].uri, or let this machine reach the hub",
    ),
}

MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""Weights as safetensors only: pickles could run code."""
DATA_FILES = ("*.parquet", "*.jsonl", "*.json", "images/*", "*/images/*")


def data_files(path: str | None) -> tuple[str, ...]:
    """The file, pattern or folder that is asked for, with the images beside it; without one, all of a data set."""
    if not path:
        return DATA_FILES
    return path, f"{path}/*", posixpath.join(posixpath.dirname(path), "images/*")


def model_id(uri: str, mount: str) -> str | None:
    """The id that `uri` would be; `mount` is what relative addresses of the PrismRun were put below. None for any other address."""
    name = uri.removeprefix(mount.rstrip("/") + "/")
    return name if _ID.fullmatch(name) else None
