"""Checkpoints in a bucket. Payload first, `manifest.json` last and only if it is not there: a committed checkpoint is never overwritten."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar

from prism_trainer.checkpoints import damaged, parse_manifest, read_manifest, require_manifest, sha256_of, storage_error
from prism_trainer.contract.checkpoint import MANIFEST, CheckpointManifest, CheckpointRef, FileEntry
from prism_trainer.errors import CheckpointCorruptError, StorageError, UnreachableError
from prism_trainer.stores.client import PART_BYTES, Advanced, ObjectClient, nobody

TRANSFER_THREADS = 8
UPLOAD_THREADS = 4
"""Fewer: each may hold several parts of a large file in memory."""

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class ObjectStore:
    """A `Store` over s3:// addresses, and the copies between it and local folders."""

    def __init__(self, client: ObjectClient, advanced: Advanced = nobody) -> None:
        """`advanced` hears of every piece that is read."""
        self.client, self._advanced = client, advanced

    @classmethod
    def connect(cls, endpoint: str | None, advanced: Advanced = nobody) -> ObjectStore:
        return cls(ObjectClient.connect(endpoint), advanced)

    def checkpoint_folders(self, uri: str) -> list[str]:
        below = {"/".join(path.split("/")[:2]) for path in self.client.files(uri) if path.count("/") >= 2}
        return [f"{uri.rstrip('/')}/{folder}" for folder in sorted(below)]

    def read_manifest(self, uri: str) -> CheckpointManifest | None:
        content = self.client.read(f"{uri}/{MANIFEST}")
        return None if content is None else parse_manifest(content, uri)

    def verify(self, ref: CheckpointRef) -> CheckpointManifest:
        manifest = require_manifest(ref, self.read_manifest(ref.uri))
        found = self.client.files(ref.uri)
        for path in sorted(found.keys() - {entry.path for entry in manifest.files} - {MANIFEST}):
            problem = f"'{ref.uri}/{path}' is not part of it (its {MANIFEST} does not list the file); take it away"
            raise damaged(manifest.stage, ref.uri, problem)

        def check(entry: FileEntry) -> None:
            self._compare(ref.uri, manifest, entry, found)
            if self.client.sha256(f"{ref.uri}/{entry.path}", entry.size, self._advanced) != entry.sha256:
                raise damaged(manifest.stage, ref.uri, _other_content(ref.uri, entry))

        _in_parallel(TRANSFER_THREADS, check, manifest.files)
        return manifest

    def remove(self, uri: str) -> None:
        self.client.delete([f"{uri}/{MANIFEST}"])
        self._abort_uploads(uri)
        self.client.delete(f"{uri}/{path}" for path in self.client.files(uri))

    def download_checkpoint(self, ref: CheckpointRef, folder: Path) -> CheckpointManifest:
        """Into `folder`, hashed on the way; what lies there already with the right content is not fetched again."""
        manifest = require_manifest(ref, self.read_manifest(ref.uri))
        found = self.client.files(ref.uri)

        def fetch(entry: FileEntry) -> None:
            target = _inside(folder, entry.path)
            if target.is_file() and target.stat().st_size == entry.size and sha256_of(target) == entry.sha256:
                return
            self._compare(ref.uri, manifest, entry, found)
            if self._download(f"{ref.uri}/{entry.path}", target, entry.size) != entry.sha256:
                target.unlink()
                raise damaged(manifest.stage, ref.uri, _other_content(ref.uri, entry))

        (folder / MANIFEST).unlink(missing_ok=True)
        _in_parallel(TRANSFER_THREADS, fetch, manifest.files)
        _forget_others(folder, manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest.to_file(), indent=2))
        return manifest

    def download_folder(self, uri: str, folder: Path) -> int:
        """Every object below `uri`; how many there are."""
        found = self.client.files(uri)
        _in_parallel(
            TRANSFER_THREADS,
            lambda item: self._download(f"{uri}/{item[0]}", _inside(folder, item[0]), item[1]),
            found.items(),
        )
        return len(found)

    def download_matching(self, uri: str, pattern: str, folder: Path) -> int:
        """Objects directly below `uri` whose names match; how many there are. What matched once and is gone, goes here as well."""
        found = {name: size for name, size in self.client.files(uri).items() if "/" not in name and fnmatchcase(name, pattern)}
        for old in folder.glob(pattern):
            if old.is_file() and old.name not in found:
                old.unlink()
        _in_parallel(TRANSFER_THREADS, lambda item: self._download(f"{uri}/{item[0]}", folder / item[0], item[1]), found.items())
        return len(found)

    def download_file(self, uri: str, file: Path) -> bool:
        """False where there is no such object."""
        size = self.client.size(uri)
        if size is not None:
            self._download(uri, file, size)
        return size is not None

    def upload_checkpoint(self, folder: Path, uri: str, sent: Advanced = nobody) -> CheckpointRef:
        """Commit the checkpoint in `folder` at `uri`; `sent` hears of every file.

        Interrupted at any point it is no checkpoint. A second try sends what is not there with the content that the manifest names. A
        large file that a kill broke off is aborted and sent from its start: its parts could be told apart by their ETags, which are
        checksums on some servers and not on others (nor with a bucket's own encryption keys).
        """
        manifest = read_manifest(folder)
        if manifest is None:
            raise StorageError(f"'{folder}' has no {MANIFEST}, so it is no checkpoint; nothing was uploaded to '{uri}'")
        ref = CheckpointRef(stage=manifest.stage, uri=uri, digest=manifest.digest, step=manifest.step)
        if self._is_committed(ref):
            return ref

        there = self.client.files(uri)

        def send(entry: FileEntry) -> None:
            if there.get(entry.path) != entry.size or self.client.remembered_sha256(f"{uri}/{entry.path}") != entry.sha256:
                self._send(folder, uri, manifest, entry)
            sent(entry.size)

        _in_parallel(UPLOAD_THREADS, send, manifest.files)
        listed = {entry.path for entry in manifest.files} | {MANIFEST}
        self.client.delete(f"{uri}/{path}" for path in self.client.files(uri) if path not in listed)
        if not self.client.create(f"{uri}/{MANIFEST}", (folder / MANIFEST).read_bytes()):
            self._is_committed(ref)
        return ref

    def _send(self, folder: Path, uri: str, manifest: CheckpointManifest, entry: FileEntry) -> None:
        if sha256_of(folder / entry.path) != entry.sha256:
            raise damaged(manifest.stage, str(folder), _other_content(str(folder), entry))
        if entry.size > PART_BYTES:
            self._abort_uploads(f"{uri}/{entry.path}")
        self.client.upload(folder / entry.path, f"{uri}/{entry.path}", entry.sha256)

    def _abort_uploads(self, uri: str) -> None:
        """What cannot be aborted costs room and does no other harm, so it is told and left."""
        try:
            self.client.abort_uploads(uri)
        except UnreachableError:
            raise
        except StorageError as error:
            log.warning("Uploads that were broken off are left where they are, if there are any: %s", error)

    def _is_committed(self, ref: CheckpointRef) -> bool:
        """Whether this very checkpoint is there. Another one in its place is left alone, whoever made it."""
        there = self.read_manifest(ref.uri)
        if there is not None and there.digest != ref.digest:
            raise StorageError(
                f"'{ref.uri}' already holds a committed checkpoint ({there.digest[:19]}, this one is {(ref.digest or '')[:19]}); "
                "it is never overwritten, remove it by hand to make it again"
            )
        return there is not None

    def _compare(self, uri: str, manifest: CheckpointManifest, entry: FileEntry, found: dict[str, int]) -> None:
        size = found.get(entry.path)
        if size is None:
            raise damaged(manifest.stage, uri, f"'{uri}/{entry.path}' is missing; restore the file")
        if size != entry.size:
            raise damaged(manifest.stage, uri, f"'{uri}/{entry.path}' has {size} bytes, expected {entry.size}; restore the file")

    def _download(self, uri: str, file: Path, size: int) -> str:
        """sha256 of what was written; never a part under the file's own name."""
        partial, digest = file.with_name(f"{file.name}.partial"), hashlib.sha256()
        with _telling(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as out:
                for chunk in self.client.chunks(uri, size, self._advanced):
                    digest.update(chunk)
                    out.write(chunk)
            partial.rename(file)
        return digest.hexdigest()


def _in_parallel(num_threads: int, work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Until all are done or one fails; then what has not begun is left."""
    with ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _inside(folder: Path, path: str) -> Path:
    """A name from a bucket must not lead out of the folder it is copied to."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise CheckpointCorruptError(f"'{path}' leads out of its folder; expected names below it, remove or rename it in the bucket")
    return folder / path


def _forget_others(folder: Path, manifest: CheckpointManifest) -> None:
    """Left by an earlier copy: a loader would take it for part of the model."""
    listed = {folder / entry.path for entry in manifest.files}
    for path in folder.rglob("*"):
        if not path.is_dir() and path not in listed:
            path.unlink()


def _other_content(uri: str, entry: FileEntry) -> str:
    return f"'{uri}/{entry.path}' has another content than when it was committed (sha256 differs); restore the file"


@contextlib.contextmanager
def _telling(file: Path) -> Iterator[None]:
    """The disk's refusal as a sentence; the wire's are sentences already."""
    try:
        yield
    except OSError as error:
        unforeseen = StorageError(f"copy '{file}' cannot be written ({error}); give the pod's work volume more room and run again")
        raise storage_error(f"copy '{file}'", file, error) or unforeseen from error
