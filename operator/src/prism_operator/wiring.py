"""Which stage each stage takes its inputs from. Pure; the planner calls it, and everything it refuses is a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prism_operator.api import AlignmentStage, AnyStage, EvaluationStage
from prism_operator.names import BASE_MODEL
from prism_operator.problems import Path, Problem, did_you_mean
from prism_trainer.contract.checkpoint import Role

MAKES_POLICY = ("sft", "alignment", "rlvr")
MAKES_DISCRIMINATOR = ("discriminator", "alignment")
ROLES_MADE: dict[str, tuple[Role, ...]] = {
    "sft": ("policy",),
    "discriminator": ("discriminator",),
    "alignment": ("policy", "discriminator"),
    "rlvr": ("policy",),
    "evaluation": ("results",),
}
"""Folders of the final checkpoint of each kind."""


@dataclass(frozen=True)
class Wire:
    """One input of a stage: the role it plays in the job, and the stage that makes it (or `model`)."""

    role: str
    stage: str


def wires_of(stages: Sequence[AnyStage], index: int) -> tuple[list[Wire], list[Problem]]:
    """Inputs of one stage, every choice made; a skipped stage has none."""
    stage = stages[index]
    path: Path = ("spec", "stages", index)
    if stage.checkpoint is not None:
        return [], []
    if isinstance(stage, EvaluationStage):
        return _evaluated(stages, index, stage, path)
    wires, problems = [], []
    asked: list[tuple[str, str | None, tuple[str, ...], str]] = [("policy", stage.policy, MAKES_POLICY, BASE_MODEL)]
    if isinstance(stage, AlignmentStage):
        asked.append(("discriminator", stage.discriminator, MAKES_DISCRIMINATOR, ""))
    for role, name, makers, otherwise in asked:
        source = name or _nearest(stages[:index], makers, role) or otherwise
        wires.append(Wire(role, source))
        problem = _refusal(stages, index, role, source, makers, (*path, role))
        problems.extend([problem] if problem else [])
    return wires, problems


def _evaluated(stages: Sequence[AnyStage], index: int, stage: EvaluationStage, path: Path) -> tuple[list[Wire], list[Problem]]:
    earlier = [other.name for other in stages[:index] if other.kind in MAKES_POLICY]
    names = stage.checkpoints or tuple(earlier) or (BASE_MODEL,)
    problems = [_refusal(stages, index, "policy", name, MAKES_POLICY, (*path, "checkpoints", i)) for i, name in enumerate(names)]
    return [Wire(name, name) for name in dict.fromkeys(names)], [problem for problem in problems if problem]


def _nearest(earlier: Sequence[AnyStage], makers: Sequence[str], role: str) -> str | None:
    """The last one before; for a discriminator a stage of that kind, though an alignment makes one too."""
    kinds = ("discriminator",) if role == "discriminator" else makers
    return next((stage.name for stage in reversed(earlier) if stage.kind in kinds), None)


def _refusal(stages: Sequence[AnyStage], index: int, role: str, name: str, makers: Sequence[str], path: Path) -> Problem | None:
    if name == BASE_MODEL and role == "policy":
        return None
    this = stages[index].name
    if not name:
        return Problem(
            ("spec", "stages", index),
            f"stage '{this}' needs a {role}, and no earlier stage makes one; put a stage of kind {makers[0]} before it "
            f"(with a checkpoint of its own to skip its training)",
        )
    source = next((stage for stage in stages if stage.name == name), None)
    if source is None:
        choices = [stage.name for stage in stages[:index] if stage.kind in makers] + ([BASE_MODEL] if role == "policy" else [])
        return Problem(path, f"stage '{this}' takes its {role} from '{name}', which is no stage of this run{did_you_mean(name, choices)}")
    if source.kind not in makers:
        return Problem(path, f"stage '{this}' takes its {role} from '{name}', a stage of kind {source.kind}, which makes no {role}")
    if stages.index(source) >= index:
        return Problem(
            path, f"stage '{this}' takes its {role} from '{name}', which does not come before it; change the order of spec.stages"
        )
    return None
