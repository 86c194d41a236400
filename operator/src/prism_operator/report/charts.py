"""Which metrics a report draws and what it says about them. Pure: a run in, charts out; `figures` draws them.

A chart joins stages on one axis: a stage's curve starts where the stages it builds on end, so that a baseline that went another way
lies under the main line at the same number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from prism_operator.report.record import RunRecord, Series, StageRecord
from prism_operator.report.sentences import Moved, sentence


@dataclass(frozen=True)
class ChartSpec:
    """One chart: for each line, the metric that each kind of stage logs for it."""

    name: str
    title: str
    noun: str
    axis: tuple[str, ...]
    lines: Mapping[str, Mapping[str, str]]
    percent: bool = False
    note: str = ""


STAGE = ""
"""Name of a chart's only line, which is then named after its stages."""
POLICY = ("alignment", "rlvr")
DISCRIMINATOR = ("discriminator", "alignment")
"""Kinds of stage whose steps follow each other on one axis, because they train the same model by the same kind of loop."""
WARM_UP_NOTE = "The warm-up is measured on held-out pairs, alignment on the rollouts of each step."

SPECS = (
    ChartSpec(
        "rollout-accuracy",
        "Accuracy of rollouts",
        "the share of right answers among rollouts",
        POLICY,
        {STAGE: {"alignment": "reward/acc_reward/mean", "rlvr": "reward/acc_reward/mean"}},
        percent=True,
        note="Rules judge; alignment does not see what they say.",
    ),
    ChartSpec(
        "discriminator-gap",
        "Discriminator: teacher's score minus student's",
        "the {line} gap",
        DISCRIMINATOR,
        {
            "caption": {"discriminator": "held_out/caption_gap", "alignment": "critic/caption_gap"},
            "cot": {"discriminator": "held_out/cot_gap", "alignment": "critic/cot_gap"},
        },
        note=WARM_UP_NOTE,
    ),
    ChartSpec(
        "discriminator-accuracy",
        "Discriminator: teacher and student told apart",
        "the {line} accuracy",
        DISCRIMINATOR,
        {
            "caption": {"discriminator": "held_out/caption_acc", "alignment": "critic/cap_acc"},
            "cot": {"discriminator": "held_out/cot_acc", "alignment": "critic/cot_acc"},
        },
        percent=True,
        note=WARM_UP_NOTE,
    ),
    ChartSpec(
        "scores",
        "Discriminator: scores during alignment",
        "the {line} score",
        ("alignment",),
        {
            "teacher caption": {"alignment": "critic/teacher_caption_mean"},
            "teacher cot": {"alignment": "critic/teacher_cot_mean"},
            "student caption": {"alignment": "critic/student_caption_mean"},
            "student cot": {"alignment": "critic/student_cot_mean"},
        },
    ),
    ChartSpec("reward", "Verifiable reward", "the mean reward", POLICY, {STAGE: {"rlvr": "reward/mean"}}),
    ChartSpec(
        "response-length",
        "Response length, tokens",
        "the mean response length in tokens",
        POLICY,
        {STAGE: {"alignment": "response_length/mean", "rlvr": "response_length/mean"}},
    ),
    ChartSpec(
        "format-rate",
        "Rollouts in the right format",
        "the share of rollouts in the right format",
        POLICY,
        {STAGE: {"alignment": "reward/format_valid_ratio", "rlvr": "reward/format_reward/mean"}},
        percent=True,
    ),
    ChartSpec(
        "entropy",
        "Entropy of the policy, nats per token",
        "the entropy in nats per token",
        POLICY,
        {STAGE: {"alignment": "actor/entropy", "rlvr": "actor/entropy"}},
    ),
    ChartSpec(
        "grad-norm",
        "Gradient norm of the policy",
        "the gradient norm",
        POLICY,
        {STAGE: {"alignment": "actor/grad_norm", "rlvr": "actor/grad_norm"}},
    ),
    ChartSpec("sft-loss", "Loss of fine-tuning, nats per token", "the loss in nats per token", ("sft",), {STAGE: {"sft": "loss"}}),
    ChartSpec(
        "warm-up-loss", "Loss of the discriminator's warm-up", "the pairwise loss", ("discriminator",), {STAGE: {"discriminator": "loss"}}
    ),
)


@dataclass(frozen=True)
class Track:
    """One line through one stage. `start` is the chart's step at which the stage begins."""

    line: str
    stage: str
    kind: str
    start: int
    series: Series

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(self.start + step for step in self.series.steps)


@dataclass(frozen=True)
class Chart:
    """Ready to be drawn and described."""

    spec: ChartSpec
    tracks: tuple[Track, ...]

    @property
    def bands(self) -> tuple[tuple[str, str, int, int], ...]:
        """(stage, kind, first step, last step) of every stage on the axis."""
        ends = {track.stage: max(other.steps[-1] for other in self.tracks if other.stage == track.stage) for track in self.tracks}
        return tuple(dict.fromkeys((track.stage, track.kind, track.start, ends[track.stage]) for track in self.tracks))

    @property
    def caption(self) -> str:
        """What the curves do, in a sentence made from their numbers."""
        nouns = [self.spec.noun.format(line=track.line) for track in self.tracks]
        moved = [Moved(noun, track.stage, track.series, self.spec.percent) for noun, track in zip(nouns, self.tracks, strict=True)]
        return f"{sentence(moved)} {self.spec.note}".strip()


def make_charts(run: RunRecord) -> tuple[Chart, ...]:
    """Every chart for which the run has data."""
    charts = (Chart(spec, _tracks(run, spec)) for spec in SPECS)
    return tuple(chart for chart in charts if chart.tracks)


def _tracks(run: RunRecord, spec: ChartSpec) -> tuple[Track, ...]:
    """From step 0, unless every curve follows stages that the chart does not show."""
    found = [
        Track(line, stage.name, stage.kind, _start(run, stage, spec.axis), series)
        for stage in run.of_kind(*spec.axis)
        for line, metrics in spec.lines.items()
        if stage.kind in metrics and (series := stage.series(metrics[stage.kind])).values
    ]
    first = min((track.start for track in found), default=0)
    return tuple(replace(track, start=track.start - first) for track in found)


def _start(run: RunRecord, stage: StageRecord, axis: tuple[str, ...]) -> int:
    return sum(parent.steps for parent in run.ancestors(stage) if parent.kind in axis)
