"""Commit, verify and find checkpoints in a folder. Payload first, hashes, all of it to the disk, then `manifest.json` by atomic rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from prism_trainer.contract.checkpoint import MANIFEST, CheckpointManifest, CheckpointRef, FileEntry
from prism_trainer.contract.schema import digest_of
from prism_trainer.errors import CheckpointCorruptError, ModelError, StorageError

Writer = Callable[[Path], None]
HASH_THREADS = 4
PARTIAL = "manifest.partial"
"""The manifest before its rename; found without a manifest, it is part of an attempt that died, and no checkpoint."""


def commit_checkpoint(
    folder: Path, payload: dict[str, Writer], describe: Callable[[tuple[FileEntry, ...]], CheckpointManifest]
) -> CheckpointRef:
    """Write each part of `payload` into `folder/<part>` and then the manifest that `describe` makes of the files.

    A folder without a manifest is a leftover of an attempt that died while writing and is replaced. From the manifest's rename on the
    checkpoint is committed, and nothing here removes it any more.
    """
    if os.path.lexists(folder / MANIFEST):
        raise StorageError(f"'{folder}' already holds a committed checkpoint; it is never overwritten, remove it by hand to make it again")
    try:
        _write_payload(folder, payload)
        manifest = describe(_hash_files(folder))
        (folder / PARTIAL).write_text(json.dumps(manifest.to_file(), indent=2))
        _sync_tree(folder)
        (folder / PARTIAL).rename(folder / MANIFEST)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        refused = storage_error(f"checkpoint '{folder}'", folder, error)
        if refused:
            raise refused from error
        raise
    _sync_commit(folder)
    return CheckpointRef(stage=manifest.stage, uri=str(folder), digest=manifest.digest, step=manifest.step)


def read_manifest(folder: Path) -> CheckpointManifest | None:
    """The manifest in `folder`; None where there is none, so no checkpoint."""
    file = folder / MANIFEST
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointCorruptError(f"'{file}' cannot be read ({error}); restore it or remove '{folder}'") from error
    return parse_manifest(content, str(folder))


def parse_manifest(text: bytes, uri: str) -> CheckpointManifest:
    """What stands in the `manifest.json` of the checkpoint at `uri`, if nobody has changed it."""
    file = f"{uri}/{MANIFEST}"
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointCorruptError(f"'{file}' cannot be read ({error}); restore it or remove '{uri}'") from error
    recorded = content.pop("digest", None) if isinstance(content, dict) else None
    try:
        manifest = CheckpointManifest.model_validate(content)
    except ValidationError as error:
        raise CheckpointCorruptError(f"'{file}' is not a manifest ({error.error_count()} errors); restore it or remove '{uri}'") from error
    if manifest.digest != recorded:
        raise CheckpointCorruptError(f"'{file}' was changed after it was written; restore it or remove '{uri}'")
    return manifest


def verify_checkpoint(ref: CheckpointRef) -> CheckpointManifest:
    """Every file of the checkpoint is there, with the size and content its manifest says, and it is the one `ref` names."""
    folder = Path(ref.uri)
    manifest = require_manifest(ref, read_manifest(folder))
    for problem in _problems(folder, manifest):
        raise damaged(manifest.stage, ref.uri, problem)
    return manifest


def require_manifest(ref: CheckpointRef, manifest: CheckpointManifest | None) -> CheckpointManifest:
    """The manifest found at `ref`, if there is one and it is the one `ref` names."""
    if manifest is None:
        raise CheckpointCorruptError(
            f"checkpoint of stage '{ref.stage}': '{ref.uri}' has no {MANIFEST}; restore it or run '{ref.stage}' again"
        )
    if ref.digest is not None and manifest.digest != ref.digest:
        raise CheckpointCorruptError(
            f"checkpoint of stage '{ref.stage}': '{ref.uri}' is {manifest.digest[:19]}, expected {ref.digest[:19]}; give the right one"
        )
    return manifest


def damaged(stage: str, uri: str, problem: str) -> CheckpointCorruptError:
    """`problem` names the file, what was found and expected, and what to do with it."""
    return CheckpointCorruptError(f"checkpoint of stage '{stage}': {problem}, or remove '{uri}' to have the stage run again")


def digest_plain_model(folder: Path) -> str:
    """Identity of a Hugging Face directory that has no manifest: the digest over its files' hashes."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"'{folder.absolute()}' is not a model directory: it has no config.json; correct the uri")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model '{folder}' has no .safetensors file; only safetensors are loaded, convert the weights")
    return digest_of([entry.to_dict() for entry in _hash_files(folder)])


def remove_checkpoint(folder: Path) -> None:
    """The manifest goes first, so that a half-removed checkpoint is none."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def storage_error(what: str, path: Path, error: Exception) -> StorageError | None:
    """The sentence for a disk that is full or that may not be written to; None where the error is another one."""
    number = _system_error(error)
    again = "and run again: earlier checkpoints are kept"
    if number == errno.ENOSPC:
        return StorageError(f"no space left for {what} ({_free(path)} free); free some {again}")
    if number == errno.EDQUOT:
        return StorageError(f"no space left for {what}: the disk quota is used up; free some, or have the quota raised, {again}")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{what} cannot be written: {os.strerror(number)}; make the place writable, or give another one, {again}")
    return None


def _system_error(error: Exception) -> int | None:
    """Its number. Libraries like safetensors report a full disk as an error of their own, with the system's number in the words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"(?:os error|Errno) (\d+)", str(error))
    return int(found[1]) if found else None


def _write_payload(folder: Path, payload: dict[str, Writer]) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    for part, write in payload.items():
        (folder / part).mkdir(parents=True)
        write(folder / part)


def _hash_files(folder: Path) -> tuple[FileEntry, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return tuple(pool.map(lambda path: _entry(folder, path), files))


def _entry(folder: Path, path: Path) -> FileEntry:
    return FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256_of(path))


def sha256_of(path: Path) -> str:
    """Hex, of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problems(folder: Path, manifest: CheckpointManifest) -> Iterator[str]:
    """Each with what to do. A file that is not listed is one too: a loader would take a shard or an adapter for part of the model."""
    listed = {folder / entry.path for entry in manifest.files}
    for path in sorted(_leaves(folder) - listed - {folder / MANIFEST}):
        yield f"'{path}' is not part of it (its {MANIFEST} does not list the file); take it away"
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        problems = pool.map(lambda entry: _check(folder / entry.path, entry), manifest.files)
        yield from (f"{problem}; restore the file" for problem in problems if problem)


def _leaves(folder: Path) -> set[Path]:
    """Everything but plain folders: links to folders as well, which a loader would follow."""
    return {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _check(path: Path, entry: FileEntry) -> str | None:
    try:
        if not path.is_file():
            return f"'{path}' is missing"
        if path.stat().st_size != entry.size:
            return f"'{path}' has {path.stat().st_size} bytes, expected {entry.size}"
        if sha256_of(path) != entry.sha256:
            return f"'{path}' has another content than when it was committed (sha256 differs)"
    except OSError as error:
        return f"'{path}' cannot be read ({error.strerror})"
    return None


def _sync_tree(folder: Path) -> None:
    """To the disk: all content, then the folders that name it, so that a manifest never outlives its payload."""
    paths = list(folder.rglob("*"))
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        list(pool.map(_sync, (path for path in paths if path.is_file())))
    for path in [*(path for path in paths if path.is_dir()), folder, folder.parent]:
        _sync(path)


def _sync_commit(folder: Path) -> None:
    """The rename to the disk. Where that fails the checkpoint is there all the same, and whoever reads it verifies it."""
    try:
        _sync(folder)
    except OSError as error:
        raise StorageError(
            f"checkpoint '{folder}' is committed, but the disk reports an error ({error.strerror}); check the disk and run again"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free(folder: Path) -> str:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB"
