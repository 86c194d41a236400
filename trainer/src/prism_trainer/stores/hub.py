"""Data sets of the Hugging Face hub. `python -m prism_trainer.stores.hub ID REVISION PATH` fetches one; its last line is where it lies.

A process of its own, so that it can be killed, and because huggingface_hub reads its environment (HF_TOKEN, HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE) on import. What is in the hub's cache already is not fetched again.
"""

from __future__ import annotations

import importlib
import posixpath
import sys
from pathlib import Path
from typing import Any

PATTERNS = ("*.parquet", "*.jsonl", "*.json", "images/*", "*/images/*")
IGNORED = ("dataset_info*.json", ".*")
UNREACHABLE = 4
"""Exit code: the same may go well later; 1: it will not."""


def main(arguments: list[str]) -> int:
    repository, revision, path = arguments
    hub: Any = importlib.import_module("huggingface_hub")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    try:
        folder = hub.snapshot_download(
            repository, repo_type="dataset", revision=revision or None, allow_patterns=_patterns(path), ignore_patterns=IGNORED
        )
    except errors.GatedRepoError:
        return _refuse(
            f"data set '{repository}' is gated; accept its terms on the hub and give a token (HF_TOKEN, or spec.secrets.huggingFace)"
        )
    except errors.RepositoryNotFoundError:
        return _refuse(f"there is no data set '{repository}' on the hub; correct data[].uri (a folder is written ./{repository})")
    except errors.RevisionNotFoundError:
        return _refuse(f"data set '{repository}' has no revision '{revision}'; correct data[].revision")
    except Exception as error:
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        _refuse(f"the hub cannot be asked for data set '{repository}' ({brief}); allow this machine to reach it, or give a local path")
        return UNREACHABLE
    found = Path(folder) / path
    if "*" not in path and not found.exists():
        return _refuse(f"data set '{repository}' has no '{path}'; correct data[].uri")
    print(found)
    return 0


def _patterns(path: str) -> list[str]:
    """What is asked for, with the images beside it."""
    if not path:
        return list(PATTERNS)
    return [path, f"{path}/*", posixpath.join(posixpath.dirname(path), "images/*")]


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
