"""The checkpoint a stage is skipped with: found on disk, and pinned by its digest."""

from __future__ import annotations

from pathlib import Path

from prism_operator.api import AnyStage, PinnedCheckpoint, PrismRun
from prism_operator.local.checkpoints import DamagedManifestError, read_manifest, subfolders
from prism_operator.names import attempt_number
from prism_operator.problems import Problem
from prism_operator.wiring import ROLES_MADE
from prism_trainer.contract.checkpoint import MANIFEST, CheckpointManifest, CheckpointRef


def pins_of(run: PrismRun, cwd: Path) -> tuple[dict[str, CheckpointRef], list[Problem]]:
    """What each skipped stage is skipped with."""
    pins, problems = {}, []
    for index, stage in enumerate(run.spec.stages):
        if stage.checkpoint is None:
            continue
        found = read_pin(stage, cwd)
        if isinstance(found, str):
            problems.append(Problem(("spec", "stages", index, "checkpoint"), found))
        else:
            pins[stage.name] = found
    return pins, problems


def read_pin(stage: AnyStage, cwd: Path) -> CheckpointRef | str:
    """The reference, or a sentence."""
    given = stage.checkpoint
    assert given is not None
    if "://" in given.uri:
        return f"'{given.uri}': `prism run` does not fetch checkpoints yet; give a local path"
    if given.revision is not None:
        return "revision: a local folder has no revisions; leave it out"
    folder = (cwd / given.uri).resolve()
    if not folder.is_dir():
        return f"no checkpoint at {folder}; give the path of a checkpoint folder (Hugging Face ids are not fetched yet)"
    try:
        return _pin(stage, given, folder)
    except DamagedManifestError as error:
        return str(error)


def _pin(stage: AnyStage, given: PinnedCheckpoint, folder: Path) -> CheckpointRef | str:
    found = newest_final(folder)
    if found is not None:
        manifest = read_manifest(found)
        problem = _unfit(stage, given, found, manifest)
        return problem or CheckpointRef(stage=stage.name, uri=str(found), digest=manifest.digest, step=manifest.step, revision=None)
    if not (folder / "config.json").is_file():
        return f"{folder} holds neither {MANIFEST} nor config.json, and no final checkpoint below it; give the path of a checkpoint"
    if given.digest is not None:
        return f"a digest is given, and {folder} has no {MANIFEST} to compare it with; leave the digest out"
    return CheckpointRef(stage=stage.name, uri=str(folder), digest=None, step=0, revision=None)


def newest_final(folder: Path) -> Path | None:
    """The folder itself if it has a manifest; below a stage's or attempt's folder, the last final checkpoint."""
    if (folder / MANIFEST).is_file():
        return folder
    attempts = sorted((n, path) for path in subfolders(folder) if (n := attempt_number(path.name)))
    steps = [step for _, path in attempts for step in subfolders(path)] or subfolders(folder)
    finals = [step for step in steps if (step / MANIFEST).is_file() and read_manifest(step).final]
    return finals[-1] if finals else None


def _unfit(stage: AnyStage, given: PinnedCheckpoint, folder: Path, manifest: CheckpointManifest) -> str | None:
    role = ROLES_MADE[stage.kind][0]
    if given.digest is not None and given.digest != manifest.digest:
        return f"{folder} has digest {manifest.digest}, and {given.digest} is asked for; give the other checkpoint or leave the digest out"
    if not manifest.final:
        return f"{folder} is a checkpoint in the middle of stage '{manifest.stage}'; give a final one"
    if not any(entry.path.startswith(f"{role}/") for entry in manifest.files):
        return f"{folder}, made by a stage of kind {manifest.kind}, has no folder {role}/, which stage '{stage.name}' must provide"
    return None
