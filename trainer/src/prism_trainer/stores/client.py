"""Objects by address, over s3fs: list, read, write, delete, with patience. Knows nothing of checkpoints.

Thread-safe: s3fs does its work on one event loop of its own, whoever calls.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import s3fs  # type: ignore[import-untyped]

from prism_trainer.errors import StorageError
from prism_trainer.stores.sentences import is_missing_key, is_transient, refusal

PATIENCE_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits between tries of one call; then storage counts as unreachable."""
CHUNK_BYTES = 16 * 2**20
PART_BYTES = 50 * 2**20
"""A file of two parts or more is uploaded in parts, so large ones that they are at most `MAX_PARTS`."""
MAX_PARTS = 10_000
PARTS_AT_ONCE = 4
"""Of one large file's upload, each in memory."""
CONTENT = "sha256"
"""Metadata of an object (`x-amz-meta-sha256`): what its content was when it was uploaded."""

Answer = TypeVar("Answer")
Advanced = Callable[[int], None]
"""Called with the number of bytes that went over the wire; whoever wants the transfer to end raises in it."""


def nobody(num_bytes: int) -> None:
    """For a transfer that nobody watches."""


class ObjectClient:
    """One endpoint."""

    def __init__(self, filesystem: Any, endpoint: str | None, patience: Sequence[float] | None = None) -> None:
        self._fs, self._endpoint = filesystem, endpoint
        self._patience = PATIENCE_SECONDS if patience is None else patience

    @classmethod
    def connect(cls, endpoint: str | None, patience: Sequence[float] | None = None) -> ObjectClient:
        """Credentials and region come from the environment, as every AWS library takes them. No listing is ever remembered.

        What is read is compared with sha256 of the manifests, so the server's weaker checksums are not looked at on top.
        """
        config: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
        config["response_checksum_validation"] = "when_required"
        filesystem = s3fs.S3FileSystem(
            endpoint_url=endpoint, use_listings_cache=False, skip_instance_cache=True, max_concurrency=PARTS_AT_ONCE, config_kwargs=config
        )
        filesystem.retries = 1  # patience is here and nowhere below, or the waits multiply
        return cls(filesystem, endpoint, patience)

    def files(self, uri: str) -> dict[str, int]:
        """Bytes of every object below `uri`, by its path relative to it."""
        prefix = f"{_key(uri)}/"
        found = self._try(uri, lambda: self._fs.find(_key(uri), detail=True))
        entries = {name.removeprefix(prefix): entry for name, entry in found.items() if name.startswith(prefix)}
        return {path: int(entry["size"]) for path, entry in sorted(entries.items()) if path and not path.endswith("/")}

    def read(self, uri: str) -> bytes | None:
        """The whole object, for small ones; None where there is none."""
        return self._if_there(uri, lambda: bytes(self._fs.cat_file(_key(uri), max_concurrency=1)))

    def size(self, uri: str) -> int | None:
        """Bytes; None where there is no such object."""
        return self._if_there(uri, lambda: int(self._fs.info(_key(uri))["size"]))

    def write(self, uri: str, content: bytes) -> None:
        self._try(uri, lambda: self._fs.pipe_file(_key(uri), content))

    def create(self, uri: str, content: bytes) -> bool:
        """Write it unless it is there (If-None-Match): False where somebody else was first, or an earlier try of ours."""
        try:
            self._try(uri, lambda: self._fs.pipe_file(_key(uri), content, mode="create"), FileExistsError)
        except FileExistsError:
            return False
        return True

    def upload(self, file: Path, uri: str, sha256: str) -> None:
        """A file that does not change meanwhile; the object remembers `sha256`, and is there whole or not at all."""
        size = max(PART_BYTES, -(-file.stat().st_size // MAX_PARTS))
        self._try(uri, lambda: self._fs.put_file(str(file), _key(uri), chunksize=size, Metadata={CONTENT: sha256}))

    def remembered_sha256(self, uri: str) -> str | None:
        """What `upload` was told of the content; None where there is no such object, or somebody else put it there."""
        return self._if_there(uri, lambda: self._fs.metadata(_key(uri)).get(CONTENT))

    def abort_uploads(self, uri: str) -> None:
        """Of `uri` and everything below it: what a killed process had sent of a large file is in no listing of objects, and paid for.

        MinIO names an upload only to those who ask for its very object, not for a folder, and ends it by itself after a day.
        """
        bucket, _, key = _key(uri).partition("/")
        listed = self._try(uri, lambda: self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key))
        for one in listed.get("Uploads", []):
            if one["Key"] == key or one["Key"].startswith(f"{key}/"):
                self._abort(f"s3://{bucket}/{one['Key']}", one["UploadId"])

    def chunks(self, uri: str, size: int, advanced: Advanced = nobody) -> Iterator[bytes]:
        """An object of `size` bytes, piece by piece; a piece that failed is asked for again."""
        for start in range(0, size, CHUNK_BYTES):
            end = min(start + CHUNK_BYTES, size)
            chunk = self._range(uri, start, end)
            if len(chunk) != end - start:
                raise StorageError(f"'{uri}' became shorter while it was read (expected {size} bytes); run again when nobody writes it")
            advanced(len(chunk))
            yield chunk

    def sha256(self, uri: str, size: int, advanced: Advanced = nobody) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks(uri, size, advanced):
            digest.update(chunk)
        return digest.hexdigest()

    def delete(self, uris: Iterable[str]) -> None:
        """What is gone already is no error."""
        keys = [_key(uri) for uri in uris]
        if keys:
            self._if_there(keys[0], lambda: self._fs.rm(keys))

    def _abort(self, uri: str, upload_id: str) -> None:
        bucket, _, key = _key(uri).partition("/")
        self._if_there(uri, lambda: self._fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id))

    def _range(self, uri: str, start: int, end: int) -> bytes:
        return self._try(uri, lambda: bytes(self._fs.cat_file(_key(uri), start=start, end=end)))

    def _if_there(self, uri: str, call: Callable[[], Answer]) -> Answer | None:
        try:
            return self._try(uri, call, FileNotFoundError)
        except FileNotFoundError as error:
            if is_missing_key(error):
                return None
            raise refusal(uri, self._endpoint, error) from error

    def _try(self, uri: str, call: Callable[[], Answer], *expected: type[OSError]) -> Answer:
        """Until it goes well or patience ends; `expected` errors are the caller's to judge."""
        for seconds in (*self._patience, None):
            try:
                return call()
            except expected:
                raise
            except Exception as error:
                if seconds is None or not is_transient(error):
                    raise refusal(uri, self._endpoint, error) from error
            time.sleep(seconds)
        raise AssertionError("the last try returns or raises")


def _key(uri: str) -> str:
    return uri.removeprefix("s3://").rstrip("/")
