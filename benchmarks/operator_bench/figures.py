"""Numbers of one repeat, their medians over repeats, and what they should be."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = dict[str, float]
"""One repeat, by the name of the figure."""


@dataclass(frozen=True)
class Row:
    """A line of the table: `{}` in `wording` are figures, in that order; `limits` bounds each from above, or from below where negative."""

    metric: str
    what: str
    wording: str
    names: tuple[str, ...]
    target: str = ""
    limits: tuple[float | None, ...] = ()

    def is_met(self, values: Sequence[float]) -> bool | None:
        """None where there is no target."""
        checks = [(value, limit) for value, limit in zip(values, self.limits, strict=False) if limit is not None]
        return all(value <= limit if limit >= 0 else value >= -limit for value, limit in checks) if checks else None


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


def p50_p99(name: str, seconds: Sequence[float]) -> Figures:
    """In milliseconds, as `name_p50` and `name_p99`."""
    return {f"{name}_p50": 1000 * percentile(seconds, 0.5), f"{name}_p99": 1000 * percentile(seconds, 0.99)}


def histogram_percentile(before: Mapping[str, float], after: Mapping[str, float], name: str, share: float) -> float:
    """Upper bound of the bucket it lies in, seconds."""
    bounds = [key.partition("/")[2] for key in after if key.startswith(f"{name}_bucket/")]
    counts = {float(bound): after[f"{name}_bucket/{bound}"] - before.get(f"{name}_bucket/{bound}", 0.0) for bound in bounds}
    wanted = share * counts[float("inf")]
    return min(bound for bound, count in counts.items() if count >= wanted)


def medians(repeats: Sequence[Figures]) -> Figures:
    """Of every figure that any repeat has."""
    names = dict.fromkeys(name for figures in repeats for name in figures)
    return {name: statistics.median([figures[name] for figures in repeats if name in figures]) for name in names}
