"""No manifest, no checkpoint; and what the manifest says is what is there."""

import errno
import os
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism_trainer.checkpoints import (
    commit_checkpoint,
    digest_plain_model,
    read_manifest,
    remove_checkpoint,
    storage_error,
    verify_checkpoint,
)
from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef, Provenance
from prism_trainer.errors import CheckpointCorruptError, ModelError, StorageError


def _describe(attempt=1, step=7, seconds=1.0):
    provenance = Provenance(attempt=attempt, created_at="2026-01-01T00:00:00Z", seconds=seconds)

    def describe(files):
        return CheckpointManifest(
            run="r", stage="sft", kind="sft", step=step, final=True, config_digest="c", seed=0, files=files, provenance=provenance
        )

    return describe


def _write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (folder / "sub").mkdir()
    (folder / "sub" / "config.json").write_text("{}")


def _commit(folder: Path, **fields) -> CheckpointRef:
    return commit_checkpoint(folder, {"policy": _write}, _describe(**fields))


def test_a_committed_checkpoint_verifies(tmp_path):
    ref = _commit(tmp_path / "step-7")
    manifest = verify_checkpoint(ref)
    assert [entry.path for entry in manifest.files] == ["policy/model.safetensors", "policy/sub/config.json"]
    assert manifest.digest == ref.digest


def test_the_digest_names_the_content_not_the_attempt_or_the_hour(tmp_path):
    first, second = _commit(tmp_path / "a", attempt=1, seconds=3.0), _commit(tmp_path / "b", attempt=4, seconds=9.0)
    other = _commit(tmp_path / "c", step=8)
    assert first.digest == second.digest != other.digest


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_the_payload_is_found_and_the_file_named(tmp_path, data):
    folder = tmp_path / uuid.uuid4().hex
    ref = _commit(folder)
    victim = data.draw(st.sampled_from(["policy/model.safetensors", "policy/sub/config.json"]))
    content = bytearray((folder / victim).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / victim).write_bytes(content)
    with pytest.raises(CheckpointCorruptError, match=victim):
        verify_checkpoint(ref)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_letter_of_the_manifest_is_found_or_says_the_same(tmp_path, data):
    folder = tmp_path / uuid.uuid4().hex
    ref = _commit(folder)
    before = read_manifest(folder)
    content = bytearray((folder / "manifest.json").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(32, 126))
    (folder / "manifest.json").write_bytes(content)
    try:
        after = verify_checkpoint(ref)
    except CheckpointCorruptError:
        return
    assert after.model_copy(update={"provenance": before.provenance}) == before


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "policy/model.safetensors").unlink(), "model.safetensors' is missing"),
        (lambda folder: (folder / "policy/model.safetensors").write_bytes(b"x"), "has 1 bytes, expected 2048"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is not a manifest"),
    ],
    ids=["file gone", "file cut", "manifest gone", "manifest cut", "manifest of another kind"],
)
def test_damage_is_a_sentence_that_says_what_to_do(tmp_path, damage, sentence):
    ref = _commit(tmp_path / "step-7")
    damage(tmp_path / "step-7")
    with pytest.raises(CheckpointCorruptError, match=sentence) as caught:
        verify_checkpoint(ref)
    assert "restore" in str(caught.value)


@pytest.mark.parametrize("name", ["policy/model-2.safetensors", "policy/sub/manifest.json", "adapter_config.json", "manifest.partial"])
def test_a_file_that_the_manifest_does_not_list_is_refused_by_name(tmp_path, name):
    ref = _commit(tmp_path / "a")
    (tmp_path / "a" / name).write_text("{}")
    with pytest.raises(CheckpointCorruptError, match=rf"{name}' is not part of it .*take it away, or remove"):
        verify_checkpoint(ref)


def test_a_link_to_a_folder_is_a_file_too_many(tmp_path):
    ref = _commit(tmp_path / "a")
    (tmp_path / "a" / "policy" / "more").symlink_to(tmp_path)
    with pytest.raises(CheckpointCorruptError, match="policy/more' is not part of it"):
        verify_checkpoint(ref)


def test_a_manifest_of_the_payloads_own_is_payload(tmp_path):
    ref = commit_checkpoint(tmp_path / "a", {"policy": lambda folder: (folder / "manifest.json").write_text("{}")}, _describe())
    assert [entry.path for entry in verify_checkpoint(ref).files] == ["policy/manifest.json"]
    (tmp_path / "a" / "policy" / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointCorruptError, match="another content"):
        verify_checkpoint(ref)


def test_another_checkpoint_than_the_one_asked_for_is_refused(tmp_path):
    _commit(tmp_path / "a")
    with pytest.raises(CheckpointCorruptError, match="expected sha256:0000"):
        verify_checkpoint(CheckpointRef(stage="sft", uri=str(tmp_path / "a"), digest="sha256:" + "0" * 64))


def test_a_committed_checkpoint_is_never_overwritten(tmp_path):
    ref = _commit(tmp_path / "a")
    with pytest.raises(StorageError, match="never overwritten"):
        _commit(tmp_path / "a", step=9)
    assert verify_checkpoint(ref).step == 7


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        commit_checkpoint(tmp_path / "a", {"policy": fail}, _describe())
    assert not (tmp_path / "a").exists()


def test_what_a_dead_attempt_left_half_written_is_replaced(tmp_path):
    (tmp_path / "a" / "policy").mkdir(parents=True)
    (tmp_path / "a" / "policy" / "stale").write_text("x")
    (tmp_path / "a" / "manifest.partial").write_text("{}")
    assert read_manifest(tmp_path / "a") is None
    ref = _commit(tmp_path / "a")
    assert not (tmp_path / "a" / "policy" / "stale").exists() and verify_checkpoint(ref)


@pytest.fixture
def synced(monkeypatch):
    """What is synced to the disk, in order; each with whether the checkpoint was committed by then."""
    calls = []
    sync = os.fsync

    def note(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append((path, any((folder / "manifest.json").exists() for folder in (path, *path.parents))))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return calls


def test_everything_is_on_the_disk_before_the_manifest_and_verifying_writes_nothing(tmp_path, synced):
    ref = _commit(tmp_path / "a")
    before = {path.relative_to(tmp_path).as_posix() for path, committed in synced if not committed}
    assert before == {".", "a", "a/policy", "a/policy/model.safetensors", "a/policy/sub", "a/policy/sub/config.json", "a/manifest.partial"}
    assert [path for path, committed in synced if committed] == [tmp_path / "a"]
    synced.clear()
    assert verify_checkpoint(ref) and not synced


def test_a_disk_that_fails_after_the_commit_leaves_the_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "a"

    def fail_when_committed(descriptor):
        if (folder / "manifest.json").exists():
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_when_committed)
    with pytest.raises(StorageError, match="is committed, but the disk reports an error"):
        _commit(folder)
    assert verify_checkpoint(CheckpointRef(stage="sft", uri=str(folder), digest=read_manifest(folder).digest))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "x"), r"no space left for checkpoint '.*' \(\d+ MiB free\); free some and run again"),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up; free some, or have the quota raised, and run again"),
        (PermissionError(errno.EACCES, "x"), "cannot be written: Permission denied; make the place writable, or give another one, and run"),
        (PermissionError(errno.EPERM, "x"), "cannot be written: Operation not permitted; make"),
        (OSError(errno.EROFS, "x"), "cannot be written: Read-only file system; make"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left for checkpoint"),
    ],
    ids=["full", "quota", "access", "permission", "read-only", "full, says a library"],
)
def test_a_disk_that_refuses_is_a_sentence_and_leaves_nothing(tmp_path, error, sentence):
    def fail(folder: Path) -> None:
        raise error

    with pytest.raises(StorageError, match=sentence):
        commit_checkpoint(tmp_path / "a", {"policy": fail}, _describe())
    assert not (tmp_path / "a").exists()


def test_another_error_is_not_the_disks():
    assert storage_error("checkpoint", Path(), FileNotFoundError(errno.ENOENT, "x")) is None
    assert storage_error("checkpoint", Path(), ValueError("28")) is None


def test_removing_takes_the_manifest_first(tmp_path):
    _commit(tmp_path / "a")
    remove_checkpoint(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a disk of 64 KiB needs root to be mounted")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_a_full_disk_is_a_sentence_and_earlier_checkpoints_stay(small_disk):
    kept = _commit(small_disk / "step-1", step=1)
    with pytest.raises(StorageError, match=r"no space left for checkpoint .*step-2'.*free some and run again"):
        commit_checkpoint(small_disk / "step-2", {"policy": lambda folder: (folder / "big").write_bytes(bytes(200_000))}, _describe(step=2))
    assert verify_checkpoint(kept) and not (small_disk / "step-2").exists()


def test_a_plain_model_directory_has_a_digest_of_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no \.safetensors file; only safetensors are loaded"):
        digest_plain_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = digest_plain_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert first != digest_plain_model(tmp_path)
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        digest_plain_model(tmp_path / "nowhere")
