"""How durations, shares and numbers are written for people: the same in the progress display, the tables and the report."""

from __future__ import annotations

import math

MINUTE = 60
HOUR = 60 * MINUTE
SPACE = "\N{NO-BREAK SPACE}"
"""Between a number and its unit, which must not part at the end of a line."""


def duration(seconds: float) -> str:
    """`8 s`, `8m 32s`, `1h 04m`: two units at most, because nobody plans by the second of a long run."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole}{SPACE}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m {whole % MINUTE:02d}s"
    return f"{whole // HOUR}h {whole % HOUR // MINUTE:02d}m"


def percent(share: float) -> str:
    """`43.5 %`."""
    return f"{100 * share:.1f}{SPACE}%"


def interval(share: float, low: float, high: float) -> str:
    """`43.5 ± 2.1 %`: half the interval's width, which a bootstrap makes only nearly symmetric."""
    return f"{100 * share:.1f} ± {50 * (high - low):.1f}{SPACE}%"


def points(difference: float) -> str:
    """`+2.1`, `−0.4`: a difference of two shares, in percentage points."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def probability(value: float) -> str:
    """`0.032`; below a thousandth the digits say nothing."""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def number(value: float) -> str:
    """Three significant digits; large ones whole, tiny ones in powers of ten."""
    return _digits(value).replace("-", "\N{MINUS SIGN}")


def _digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 0.001:
        return f"{value:.1e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def when(time: str) -> str:
    """A timestamp of a file, without the T: `2026-11-23 04:11 UTC`."""
    return f"{time[:10]} {time[11:16]} UTC" if time[10:11] == "T" else time


def size(num_bytes: int) -> str:
    """`8.4 MB`, in powers of ten as file managers have them."""
    amount, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def short_digest(digest: str) -> str:
    """`sha256:3f2a91c07b4e` of a whole digest: enough to tell checkpoints apart by eye."""
    algorithm, _, hexadecimal = digest.partition(":")
    return f"{algorithm}:{hexadecimal[:12]}"
