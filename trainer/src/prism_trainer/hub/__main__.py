"""`python -m prism_trainer.hub KIND ID REVISION CACHE PATTERN...`: fetch what matches; the last line is the folder of the snapshot.

REVISION and CACHE may be empty: the hub's default, and its own cache.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from prism_trainer.hub.wanted import KINDS, REFUSED, UNREACHABLE, Kind


def main(arguments: list[str]) -> int:
    name, repository, revision, cache, *patterns = arguments
    kind = KINDS[name]
    hub: Any = importlib.import_module("huggingface_hub")
    where = {"repo_type": kind.repo_type, "revision": revision or None, "cache_dir": cache or None}
    try:
        print(hub.snapshot_download(repository, **where, allow_patterns=patterns, ignore_patterns=list(kind.ignored) or None))
    except Exception as error:
        code, sentence = _complaint(kind, f"{kind.noun} '{repository}'", revision, error)
        print(sentence, file=sys.stderr)
        return code
    return 0


def _complaint(kind: Kind, what: str, revision: str, error: Exception) -> tuple[int, str]:
    errors: Any = importlib.import_module("huggingface_hub.errors")
    if isinstance(error, errors.GatedRepoError):
        return REFUSED, f"{what} is gated; accept its terms on the hub and give a token (HF_TOKEN, or a Secret in spec.secrets.huggingFace)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return REFUSED, f"there is no {what}, {kind.missing}; correct {kind.uri}"
    if isinstance(error, errors.RevisionNotFoundError):
        return REFUSED, f"{what} has no revision '{revision}'; correct {kind.revision}"
    brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return UNREACHABLE, f"{what} is not on this machine, and the hub cannot be asked for it ({brief}); {kind.way_out}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
