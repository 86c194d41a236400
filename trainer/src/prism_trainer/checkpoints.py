"""Commit, verify and find checkpoints in a folder. Payload first, hashes, then `manifest.json` by atomic rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from prism_trainer.contract.checkpoint import MANIFEST, CheckpointManifest, CheckpointRef, FileEntry
from prism_trainer.contract.schema import digest_of
from prism_trainer.errors import CheckpointCorruptError, ModelError, StorageError

Writer = Callable[[Path], None]
HASH_THREADS = 4


def commit_checkpoint(
    folder: Path, payload: dict[str, Writer], describe: Callable[[tuple[FileEntry, ...]], CheckpointManifest]
) -> CheckpointRef:
    """Write each part of `payload` into `folder/<part>` and then the manifest that `describe` makes of the files.

    A folder without a manifest is a leftover of an attempt that died while writing and is replaced.
    """
    if (folder / MANIFEST).exists():
        raise StorageError(f"'{folder}' already holds a committed checkpoint; it is never overwritten, remove it by hand to make it again")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        for part, write in payload.items():
            (folder / part).mkdir(parents=True)
            write(folder / part)
        manifest = describe(_hash_files(folder))
        _write_atomically(folder / MANIFEST, json.dumps(manifest.to_file(), indent=2))
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if _is_out_of_space(error):
            raise StorageError(
                f"no space left for checkpoint '{folder}' ({_free(folder)} free); free some and run again: earlier checkpoints are kept"
            ) from error
        raise
    return CheckpointRef(stage=manifest.stage, uri=str(folder), digest=manifest.digest, step=manifest.step)


def read_manifest(folder: Path) -> CheckpointManifest | None:
    """The manifest in `folder`; None where there is none, so no checkpoint."""
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointCorruptError(f"'{file}' cannot be read ({error}); restore it or remove '{folder}'") from error
    recorded = content.pop("digest", None) if isinstance(content, dict) else None
    try:
        manifest = CheckpointManifest.model_validate(content)
    except ValidationError as error:
        raise CheckpointCorruptError(
            f"'{file}' is not a manifest ({error.error_count()} errors); restore it or remove '{folder}'"
        ) from error
    if manifest.digest != recorded:
        raise CheckpointCorruptError(f"'{file}' was changed after it was written; restore it or remove '{folder}'")
    return manifest


def verify_checkpoint(ref: CheckpointRef) -> CheckpointManifest:
    """Every file of the checkpoint is there, with the size and content its manifest says, and it is the one `ref` names."""
    folder = Path(ref.uri)
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointCorruptError(
            f"checkpoint of stage '{ref.stage}': '{folder}' has no {MANIFEST}; restore it or run '{ref.stage}' again"
        )
    if ref.digest is not None and manifest.digest != ref.digest:
        raise CheckpointCorruptError(
            f"checkpoint of stage '{ref.stage}': '{folder}' is {manifest.digest[:19]}, expected {ref.digest[:19]}; give the right one"
        )
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for problem in pool.map(lambda entry: _check(folder, entry), manifest.files):
            if problem:
                raise CheckpointCorruptError(
                    f"checkpoint of stage '{manifest.stage}': {problem}; restore the file, or remove '{folder}' to have the stage run again"
                )
    return manifest


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


def _hash_files(folder: Path) -> tuple[FileEntry, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return tuple(pool.map(lambda path: _entry(folder, path), files))


def _entry(folder: Path, path: Path) -> FileEntry:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256)


def _check(folder: Path, entry: FileEntry) -> str | None:
    path = folder / entry.path
    if not path.is_file():
        return f"'{path}' is missing"
    if path.stat().st_size != entry.size:
        return f"'{path}' has {path.stat().st_size} bytes, expected {entry.size}"
    if _entry(folder, path).sha256 != entry.sha256:
        return f"'{path}' has another content than when it was committed (sha256 differs)"
    return None


def _write_atomically(file: Path, text: str) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file)
    directory = os.open(file.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def _is_out_of_space(error: Exception) -> bool:
    """safetensors reports a full disk as its own error, with the system's words in it."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def _free(folder: Path) -> str:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB"
