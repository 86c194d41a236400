"""Runs, and what an executor might find of them, in a line each.

scene = make_run().stage("sft").stage("rlvr").scene()
scene.attempt("sft", 1, failed="NodeLost").intermediate("sft", 1, step=2).decide()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.children import AttemptRecord, Children, CommittedCheckpoint, StopReason, StopRequest, Unfinished, Wishes
from prism_operator.decide import Decision, decide
from prism_operator.names import output_uri
from prism_operator.observed import Observed, observe
from prism_operator.parse import parse_run
from prism_operator.plan import RunPlan, Site, make_plan
from prism_operator.status import make_status
from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef, FileEntry, Provenance
from prism_trainer.contract.report import FailureClass, Progress, StageResult

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
ROOT = "/runs/demo"
OTHER_DIGEST = "sha256:" + "0" * 64
NEEDS_DATA = ("sft", "discriminator", "alignment", "rlvr", "evaluation")


def at(seconds: float) -> datetime:
    """That long after NOW."""
    return NOW + timedelta(seconds=seconds)


@dataclass
class RunBuilder:
    """A PrismRun as it stands in a file."""

    raw: dict[str, Any]

    def stage(self, kind: str, name: str | None = None, **fields: Any) -> Self:
        """With a data set, unless it is given."""
        stage = {"kind": kind, "data": [{"uri": f"{kind}.jsonl"}], **fields}
        self.raw["spec"]["stages"].append(stage if name is None else {**stage, "name": name})
        return self

    def run(self) -> PrismRun:
        parsed = parse_run(self.raw)
        assert parsed.run is not None and not parsed.problems, parsed.problems
        return parsed.run

    def plan(self, pins: Mapping[str, CheckpointRef] | None = None) -> RunPlan:
        return make_plan(self.run(), Site(root_uri=ROOT, base_dir="/data", pins=pins or {}))

    def scene(self, **wishes: Any) -> Scene:
        return Scene(self.plan(), Wishes(**{"since": NOW, **wishes}))


def make_run(name: str = "demo", **spec: Any) -> RunBuilder:
    """Without stages."""
    raw = {"apiVersion": "prism.dev/v1alpha1", "kind": "PrismRun", "metadata": {"name": name}}
    base = {"model": {"uri": "base"}, "storage": {"local": {"path": "runs/demo"}}}
    return RunBuilder({**raw, "spec": {**base, **spec, "stages": []}})


def make_pipeline(**spec: Any) -> RunBuilder:
    """All five kinds, by their own names."""
    run = make_run(**spec)
    for kind in NEEDS_DATA:
        run.stage(kind)
    return run


@dataclass
class Scene:
    """What an executor finds."""

    plan: RunPlan
    wishes: Wishes
    attempts: list[AttemptRecord] = field(default_factory=list)
    checkpoints: list[CommittedCheckpoint] = field(default_factory=list)
    unfinished_: list[Unfinished] = field(default_factory=list)
    previous: PrismRunStatus | None = None

    def attempt(self, stage: str, number: int = 1, failed: str | None = None, stopped: StopReason | None = None, **fields: Any) -> Self:
        """Dead without a word, unless more is said."""
        given: dict[str, Any] = {"started_at": at(-100), "ended_at": at(-50), "config_digest": self._digest(stage)}
        if failed is not None:
            given["result"] = StageResult(
                stage=stage, attempt=number, outcome="Failed", failure_class=FailureClass(failed), message="it broke"
            )
        if stopped is not None:
            given["stop"] = StopRequest(reason=stopped, requested_at=at(-60).isoformat())
        self.attempts.append(AttemptRecord(stage, number, **{**given, **fields}))
        return self

    def live(self, stage: str, number: int = 1, **fields: Any) -> Self:
        return self.attempt(stage, number, **{"alive": True, "ended_at": None, "started_at": NOW, **fields})

    def final(self, stage: str, attempt: int = 1, step: int = 4, **fields: Any) -> Self:
        return self._commit(stage, attempt, step, True, **fields)

    def intermediate(self, stage: str, attempt: int = 1, step: int = 2, **fields: Any) -> Self:
        return self._commit(stage, attempt, step, False, **fields)

    def unfinished(self, stage: str, attempt: int, name: str) -> Self:
        self.unfinished_.append(Unfinished(stage, attempt, f"{output_uri(ROOT, stage, attempt)}/{name}"))
        return self

    def done(self, *stages: str) -> Self:
        for stage in stages:
            self.attempt(stage).final(stage)
        return self

    def wish(self, **wishes: Any) -> Self:
        self.wishes = replace(self.wishes, **wishes)
        return self

    def children(self) -> Children:
        return Children(self.wishes, tuple(self.attempts), tuple(self.checkpoints), tuple(self.unfinished_))

    def observe(self) -> Observed:
        return observe(self.plan, self.children(), self.previous)

    def decide(self, now: datetime = NOW) -> Decision:
        return decide(self.plan, self.observe(), now)

    def status(self, now: datetime = NOW) -> PrismRunStatus:
        """Remembered, as the next pass finds it."""
        self.previous = make_status(self.plan, self.observe(), self.decide(now), self.previous, now)
        return self.previous

    def _digest(self, stage: str) -> str:
        return next((planned.config_digest for planned in self.plan.stages if planned.name == stage), OTHER_DIGEST)

    def _commit(self, stage: str, attempt: int, step: int, final: bool, digest: str | None = None) -> Self:
        manifest = make_manifest(stage, attempt, step, final, digest or self._digest(stage))
        uri = f"{output_uri(ROOT, stage, attempt)}/step-{step:06d}"
        self.checkpoints.append(CommittedCheckpoint.from_manifest(attempt, uri, manifest))
        return self


def make_manifest(stage: str, attempt: int, step: int, final: bool, digest: str, role: str = "policy") -> CheckpointManifest:
    return CheckpointManifest(
        run="demo",
        stage=stage,
        kind=stage,
        step=step,
        final=final,
        config_digest=digest,
        seed=0,
        files=(FileEntry(path=f"{role}/model.safetensors", size=1, sha256="a" * 64),),
        provenance=Provenance(attempt=attempt, created_at=NOW.isoformat(), seconds=1.0),
    )


def heartbeat(stage: str, advanced_at: datetime, step: int = 1, attempt: int = 1) -> Progress:
    time = advanced_at.isoformat()
    return Progress(stage=stage, attempt=attempt, step=step, total_steps=10, advanced_at=time, updated_at=time)
