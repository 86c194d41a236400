"""A data set of the Hugging Face hub. `python -m prism_trainer.evaluation.hub ID REVISION PATTERN...`; its last line is the folder."""

from __future__ import annotations

import importlib
import sys
from typing import Any

UNREACHABLE = 4
"""Exit code: the same may go well later."""
REFUSED = 1
"""Exit code: it will not."""


def main(arguments: list[str]) -> int:
    repository, revision, *patterns = arguments
    hub: Any = importlib.import_module("huggingface_hub")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    wanted = {"repo_type": "dataset", "revision": revision or None, "allow_patterns": patterns}
    try:
        print(hub.snapshot_download(repository, **wanted))
    except errors.GatedRepoError:
        return _say(f"data set '{repository}' is gated; accept its terms on the hub and give a token (spec.secrets.huggingFace)", REFUSED)
    except errors.RevisionNotFoundError:
        return _say(f"data set '{repository}' has no revision '{revision}'; correct config.benchmarks[].revision", REFUSED)
    except errors.RepositoryNotFoundError:
        return _say(f"there is no data set '{repository}' on the hub; correct config.benchmarks[].uri", REFUSED)
    except Exception as error:
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        way_out = "put it into a folder and name that in config.benchmarks[].uri, or let this machine reach the hub"
        return _say(
            f"data set '{repository}' is not in this machine's cache, and the hub cannot be asked for it ({brief}); {way_out}", UNREACHABLE
        )
    return 0


def _say(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
