"""Sentences about curves, made from their numbers alone, so that a caption cannot claim what the data does not show.

A curve's beginning and end are the means of its first and last tenth. A change smaller than the noise between steps is called that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from prism_operator.report.record import Series
from prism_operator.wording import number, percent

MEDIAN_OF_NORMAL = 0.6745
"""Of the absolute value of a standard normal variable."""
FEW = 5
"""Points below which noise cannot be told from change."""
NOTABLE = 0.25
"""Share of a curve's range by which it must leave the span between its ends for the turn to be mentioned."""


@dataclass(frozen=True)
class Moved:
    """A curve with the words for it."""

    noun: str
    stage: str
    series: Series
    percent: bool = False

    def written(self, value: float) -> str:
        return percent(value) if self.percent else number(value)


def sentence(curves: Sequence[Moved]) -> str:
    """What each curve did, stage by stage; the noun only once where all curves share it."""
    nouns = {curve.noun for curve in curves}
    if len(nouns) == 1:
        text = f"{nouns.pop()} " + joined(f"{movement(curve)} over {_steps(curve)}" for curve in curves)
    else:
        text = "; ".join(_part(list(group)) for _, group in itertools.groupby(curves, key=lambda curve: curve.stage))
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _part(curves: list[Moved]) -> str:
    return f"over {_steps(curves[0])}, " + joined(f"{curve.noun} {movement(curve)}" for curve in curves)


def _steps(curve: Moved) -> str:
    return f"{curve.series.steps[-1]:,} steps of {curve.stage}"


def joined(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def movement(curve: Moved) -> str:
    """`rose from 0.1 to 2.3`, with the turning point where there is a notable one."""
    series = curve.series
    if len(series.values) == 1:
        return f"was {curve.written(series.values[0])}"
    start, end = curve.written(series.beginning), curve.written(series.ending)
    turn = _turn(series)
    if turn is not None:
        step, value = turn
        there, back = ("rose", "fell") if value > series.beginning else ("fell", "rose")
        return f"{there} from {start} to {curve.written(value)} at step {step:,} and {back} to {end}"
    if start == end:
        return f"stayed at {start}"
    if abs(series.ending - series.beginning) < noise(series):
        return f"went from {start} to {end}, which is within its noise"
    return f"{'rose' if series.ending > series.beginning else 'fell'} from {start} to {end}"


def noise(series: Series) -> float:
    """Twice the standard error of end minus beginning, from the differences between neighbours, on which a trend has little effect.

    From their median, because a curve that is learnt in its first few points has one large difference that is no noise.
    """
    if len(series.values) < FEW:
        return 0.0
    typical = median(abs(after - before) for before, after in itertools.pairwise(series.values))
    deviation = typical / (MEDIAN_OF_NORMAL * math.sqrt(2))
    return 2 * deviation * math.sqrt(2 / series.end_size)


def _turn(series: Series) -> tuple[int, float] | None:
    """The step and value farthest outside the span of the ends, if notable; the farthest of many is far by chance: noise counts twice."""
    if len(series.values) < FEW:
        return None
    smooth = series.smoothed(series.end_size)
    low, high = sorted((series.beginning, series.ending))
    outside = [max(value - high, low - value) for value in smooth]
    farthest = max(range(len(smooth)), key=outside.__getitem__)
    if outside[farthest] < max(NOTABLE * (max(smooth) - min(smooth)), 2 * noise(series)):
        return None
    return series.steps[farthest], smooth[farthest]
