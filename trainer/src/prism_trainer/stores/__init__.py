"""Where checkpoints lie: in folders of a mounted volume, or in a bucket. Both are asked the same questions."""

from __future__ import annotations

from prism_trainer.stores.base import Store
from prism_trainer.stores.folders import FolderStore

__all__ = ["S3", "FolderStore", "Store", "is_object"]

S3 = "s3://"


def is_object(uri: str) -> bool:
    """Whether it is an address in object storage; everything else is a path."""
    return uri.startswith(S3)
