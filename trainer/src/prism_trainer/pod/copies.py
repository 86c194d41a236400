"""Local copies of what lies in object storage: `s3://bucket/key` is `<folder>/bucket/key` and back, so that the trainer sees paths only.

The same address has the same path in every attempt, because paths enter manifests as the names of data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.stores import S3, is_object

if TYPE_CHECKING:
    from prism_trainer.stores.objects import ObjectStore


class Copies:
    """One pod's copies. `advanced` is called with the bytes of every piece that came; raising in it ends a copy."""

    def __init__(self, folder: Path, endpoint: str | None, advanced: Callable[[int], None]) -> None:
        self._folder, self._endpoint, self._advanced = folder, endpoint, advanced
        self._store: ObjectStore | None = None

    @property
    def store(self) -> ObjectStore:
        """Connected when first needed: a run on a shared volume has no object storage."""
        if self._store is None:
            from prism_trainer.stores.objects import ObjectStore

            self._store = ObjectStore.connect(self._endpoint, self._advanced)
        return self._store

    def path(self, uri: str) -> str:
        """A path stays."""
        return str(self._folder / uri.removeprefix(S3)) if is_object(uri) else uri

    def uri(self, path: str) -> str:
        """The address a path is the copy of; any other path stays."""
        if is_object(path) or not Path(path).is_relative_to(self._folder):
            return path
        return S3 + Path(path).relative_to(self._folder).as_posix()

    def in_words(self, sentence: str) -> str:
        """A sentence about copies becomes one about what they are copies of."""
        return sentence.replace(f"{self._folder}/", S3)

    def outside(self, ref: CheckpointRef | None) -> CheckpointRef | None:
        """The reference as everybody outside of this pod knows it."""
        return ref and ref.model_copy(update={"uri": self.uri(ref.uri)})

    def local_job(self, job: StageJob) -> StageJob:
        """The job with the paths the trainer writes to."""
        return job.model_copy(update={"output_uri": self.path(job.output_uri), "report_dir": self.path(job.report_dir)})

    def fetch_checkpoint(self, ref: CheckpointRef) -> CheckpointRef:
        """A copy that is what `ref` and its manifest say, or CheckpointCorruptError naming the file."""
        folder = Path(self.path(ref.uri))
        manifest = self.store.download_checkpoint(ref, folder)
        return ref.model_copy(update={"uri": str(folder), "digest": manifest.digest, "step": manifest.step})

    def fetch_model(self, ref: CheckpointRef) -> CheckpointRef | None:
        """A Hugging Face directory, whole; None where nothing lies at the address."""
        folder = Path(self.path(ref.uri))
        if not self.store.download_folder(ref.uri.rstrip("/"), folder):
            return None
        return ref.model_copy(update={"uri": str(folder)})

    def fetch_data(self, uri: str) -> str | None:
        """The file, or those whose names a pattern with * matches, and the folder `images/` beside it where there is one; or the whole
        folder, if it ends in /. None where there is nothing.
        """
        file = Path(self.path(uri))
        if uri.endswith("/"):
            return str(file) if self.store.download_folder(uri.rstrip("/"), file) else None
        beside = uri.rsplit("/", 1)[0]
        found = self.store.download_matching(beside, file.name, file.parent) if "*" in file.name else self.store.download_file(uri, file)
        if not found:
            return None
        self.store.download_folder(f"{beside}/images", file.parent / "images")
        return str(file)
