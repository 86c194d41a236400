"""Where what an attempt wrote lies in the run's storage, in the words of a person who looks for it. Pure."""

from __future__ import annotations

from typing import Any

from prism_operator.names import report_dir

LOG = "log.txt"


def log_place(raw: dict[str, Any], stage: str, attempt: int) -> str:
    """`s3://...`, or a path in a claim; the run's folder bears its name."""
    storage = (raw.get("spec") or {}).get("storage") or {}
    name = raw["metadata"]["name"]
    if store := storage.get("objectStore"):
        return f"{report_dir(store['uri'].rstrip('/') + '/' + name, stage, attempt)}/{LOG}"
    claim = storage.get("pvc") or {}
    sub_path = str(claim.get("subPath") or "").strip("/")
    root = f"{sub_path}/{name}" if sub_path else name
    return f"{report_dir(root, stage, attempt)}/{LOG} in PersistentVolumeClaim '{claim.get('claimName', '?')}'"
