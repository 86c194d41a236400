"""Draws charts with matplotlib: lines labelled at their ends, stages named above the axes, no legend to look things up in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from prism_operator.report.canvas import INK, LINE_COLORS, MUTED, STAGE_COLORS, color, new_axes
from prism_operator.report.charts import Chart, Track
from prism_operator.wording import number, percent
from prism_trainer.contract.results import EvaluationRow

SMOOTH_FROM = 20
"""Points from which a line is drawn smoothed over its raw values."""
SMOOTH_SHARE = 20
NICE = [1, 2, 2.5, 5, 10]
LABEL_GAP = 0.08
"""Least distance of two end labels, as a share of the axes' height."""
CHARACTER = 0.018
"""Width of a character of a stage's name, as a share of the axes' width."""
LONG = 10
"""Characters from which a name has a line of its own in an end label."""
AT_RIGHT = 0.93
"""Lines that end beyond this share of the axis are labelled at its right edge."""


@dataclass(frozen=True)
class EndLabel:
    """Text at the end of a line."""

    height: float
    text: str
    color: str

    @property
    def lines(self) -> int:
        return 1 + self.text.count("\n")


def draw_chart(chart: Chart) -> Figure:
    """All tracks of a chart on one axis of steps."""
    figure, axes = new_axes(chart.spec.title)
    shades = stage_styles([stage for stage, *_ in chart.bands], {stage: kind for stage, kind, *_ in chart.bands})
    for track in chart.tracks:
        _draw_track(axes, track, shades)
    last = max(1, *(end for *_, end in chart.bands))
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=NICE))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=NICE))
    axes.set_xlabel("optimizer steps" if len(chart.bands) == 1 else "optimizer steps, one stage after the other")
    if chart.spec.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    _name_stages(axes, chart, shades, last)
    _label_ends(axes, chart, shades, last)
    return figure


def stage_styles(stages: Sequence[str], kinds: dict[str, str]) -> dict[str, tuple[str, str]]:
    """(colour, dash) of each stage: the colour tells the kind, the dash tells a second stage of that kind from the first."""
    seen: list[str] = []
    styles = {}
    for stage in stages:
        styles[stage] = (color(STAGE_COLORS.get(kinds[stage], "slate")), ("-", "--", ":")[min(seen.count(kinds[stage]), 2)])
        seen.append(kinds[stage])
    return styles


def _line_style(track: Track, shades: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """A named line keeps its colour through all stages; teacher and student differ in the dash."""
    if not track.line:
        return shades[track.stage]
    component = track.line.rpartition(" ")[2]
    return color(LINE_COLORS.get(component, "slate")), "--" if track.line.startswith("teacher") else "-"


def _draw_track(axes: Axes, track: Track, shades: dict[str, tuple[str, str]]) -> None:
    shade, dash = _line_style(track, shades)
    values = track.series.values
    if len(values) < SMOOTH_FROM:
        axes.plot(track.steps, values, dash, color=shade, linewidth=1.8, marker="o", markersize=3.5, clip_on=False)
        return
    axes.plot(track.steps, values, color=shade, linewidth=0.8, alpha=0.28)
    axes.plot(track.steps, track.series.smoothed(len(values) // SMOOTH_SHARE + 1), dash, color=shade, linewidth=2)


def _name_stages(axes: Axes, chart: Chart, shades: dict[str, tuple[str, str]], last: int) -> None:
    """Above the axes, where each stage begins; names that would touch get a row each."""
    row_ends: list[float] = []
    named_lines = any(track.line for track in chart.tracks)
    for stage, _, start, _ in sorted(chart.bands, key=lambda band: band[2]):
        left = start / last
        row = next((row for row, taken in enumerate(row_ends) if taken <= left), len(row_ends))
        row_ends[row : row + 1] = [left + CHARACTER * (len(stage) + 1)]
        shade = MUTED if named_lines else shades[stage][0]
        axes.text(left + 0.006, 1.02 + 0.07 * row, stage, transform=axes.transAxes, color=shade, fontsize=9.5)
        if start:
            axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))


def _label_ends(axes: Axes, chart: Chart, shades: dict[str, tuple[str, str]], last: int) -> None:
    low, high = axes.get_ylim()
    ending = [track for track in chart.tracks if track.steps[-1] >= AT_RIGHT * last]
    labels = []
    for track in ending:
        value = track.series.ending
        name = track.line or (track.stage if len(ending) > 1 else "")
        text = f"{name}{chr(10) if len(name) > LONG else ' '}{percent(value) if chart.spec.percent else number(value)}".strip()
        labels.append(EndLabel((value - low) / (high - low), text, _line_style(track, shades)[0]))
    for label in spread(labels):
        axes.text(1.012, label.height, label.text, transform=axes.transAxes, color=label.color, va="center", fontsize=9.5, linespacing=1.15)


def spread(labels: Sequence[EndLabel]) -> list[EndLabel]:
    """From bottom to top, each far enough above the one below for both to be read."""
    placed: list[EndLabel] = []
    for label in sorted(labels, key=lambda label: label.height):
        floor = placed[-1].height + LABEL_GAP * (placed[-1].lines + label.lines) / 2 if placed else -1.0
        placed.append(EndLabel(max(label.height, floor), label.text, label.color))
    return placed


def draw_evaluation(rows: Sequence[EvaluationRow], kinds: dict[str, str]) -> Figure:
    """Accuracy of each checkpoint with its confidence interval, first stage on top."""
    names = [f"{row.stage}, step {row.steps:,}" for row in reversed(rows)]
    left = 0.03 + 0.014 * max(len(name) for name in names)
    figure, axes = new_axes("Held-out accuracy", height=1.4 + 0.34 * len(rows), left=left, right=0.87)
    for height, row in enumerate(reversed(rows)):
        shade = color(STAGE_COLORS.get(kinds.get(row.stage, ""), "slate"))
        axes.plot([row.ci_low, row.ci_high], [height, height], color=shade, linewidth=2.4)
        axes.plot([row.accuracy], [height], "o", color=shade, markersize=7)
        axes.text(1.015, height, percent(row.accuracy), transform=axes.get_yaxis_transform(), va="center", color=shade, fontweight="bold")
    axes.set_yticks(range(len(rows)), names, color=INK)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=NICE))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel("accuracy, with its confidence interval")
    return figure
