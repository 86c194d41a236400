"""Which checkpoint was made from which: committed checkpoints by digest, and the chain back to the base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prism_operator.report.record import CommittedCheckpoint, RunRecord
from prism_trainer.contract.checkpoint import CheckpointManifest


@dataclass(frozen=True)
class Link:
    """One checkpoint of a chain. `known`: its manifest lies in the run folder."""

    stage: str
    digest: str
    known: bool


def total_bytes(manifest: CheckpointManifest) -> int:
    return sum(file.size for file in manifest.files)


def chain(run: RunRecord) -> list[Link]:
    """From the base model to the last policy of the main line, through the policies; discriminators stand in the table."""
    by_digest = {checkpoint.manifest.digest: checkpoint.manifest for checkpoint in run.checkpoints}
    current = _last_policy(run)
    links: list[Link] = []
    while current and Link(current.stage, current.digest, True) not in links:
        links.append(Link(current.stage, current.digest, True))
        parents = [parent for parent in current.parents if (known := by_digest.get(parent.digest)) is None or known.kind != "discriminator"]
        if parents and parents[0].digest not in by_digest:
            links.append(Link(parents[0].stage, parents[0].digest, False))
        current = by_digest.get(parents[0].digest) if parents else None
    return links[::-1]


def _last_policy(run: RunRecord) -> CheckpointManifest | None:
    """What the last evaluated policy was; before any evaluation, the newest final policy."""
    measured = run.main_line[-1].manifest if run.main_line else None
    policies = [checkpoint.manifest for checkpoint in in_order(run) if checkpoint.manifest.final and _is_policy(checkpoint)]
    return next((manifest for manifest in policies if manifest.digest == measured), policies[-1] if policies else None)


def _is_policy(checkpoint: CommittedCheckpoint) -> bool:
    return checkpoint.manifest.kind not in ("discriminator", "evaluation")


def in_order(run: RunRecord) -> Sequence[CommittedCheckpoint]:
    """Stages in the order of the run, attempts and steps within them."""
    names = [stage.name for stage in run.stages]

    def position(checkpoint: CommittedCheckpoint) -> tuple[int, int, int]:
        manifest = checkpoint.manifest
        return names.index(manifest.stage) if manifest.stage in names else len(names), manifest.provenance.attempt, manifest.step

    return sorted(run.checkpoints, key=position)
