"""Models by Hugging Face id. `python -m prism_trainer.pod.hugging_face ID REVISION FOLDER` fetches one; its last line is the directory.

A process of its own, so that it can be killed, and because huggingface_hub reads its environment (HF_TOKEN, HF_ENDPOINT) on import.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""Weights as safetensors only: pickles could run code."""
IGNORED = ("original/*", "onnx/*", "openvino/*")
UNREACHABLE = 4
"""Exit code: the same may go well later; 1: it will not."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_id(uri: str, mount: str) -> str | None:
    """The id that `uri` would be; `mount` is what relative addresses of the PrismRun were put below. None for any other address."""
    name = uri.removeprefix(mount.rstrip("/") + "/")
    return name if _ID.fullmatch(name) else None


def main(arguments: list[str]) -> int:
    repository, revision, folder = arguments
    hub: Any = importlib.import_module("huggingface_hub")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    try:
        path = hub.snapshot_download(
            repository, revision=revision or None, cache_dir=folder, allow_patterns=PATTERNS, ignore_patterns=IGNORED
        )
    except errors.GatedRepoError:
        return _refuse(
            f"model '{repository}' is gated; accept its terms on the hub and name a Secret with a token in spec.secrets.huggingFace"
        )
    except errors.RepositoryNotFoundError:
        return _refuse(f"there is no model '{repository}', neither on the storage nor on the hub; correct spec.model.uri")
    except errors.RevisionNotFoundError:
        return _refuse(f"model '{repository}' has no revision '{revision}'; correct spec.model.revision")
    except Exception as error:
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        sentence = f"model '{repository}' is not on the storage, and the hub cannot be asked for it ({brief})"
        print(f"{sentence}; put the model on the storage or allow the pod to reach the hub", file=sys.stderr)
        return UNREACHABLE
    print(path)
    return 0


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
