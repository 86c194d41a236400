"""One look for all figures, saved twice: as a PNG, and as an SVG whose colours are CSS variables, so that it follows the page's theme.

Figures are made without pyplot, which keeps global state and guesses a window system.
"""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = {
    "ink": ("#1c2127", "#e4e7eb"),
    "muted": ("#67707c", "#98a1ad"),
    "grid": ("#e4e7eb", "#2b313a"),
    "slate": ("#566173", "#9fabbd"),
    "purple": ("#7a4cc2", "#b596f2"),
    "blue": ("#2264c4", "#70a9f8"),
    "green": ("#1b7d54", "#4fc58d"),
    "teal": ("#0f7b86", "#4cc2cc"),
    "orange": ("#c2541a", "#f0955e"),
}
"""By name: on a light page (and in every PNG), and on a dark one. All text colours have a contrast of at least 4.5 on both."""

LINE_COLORS = {"caption": "teal", "cot": "orange", "teacher": "slate"}
STAGE_COLORS = {"sft": "slate", "discriminator": "purple", "alignment": "blue", "rlvr": "green"}

INK, MUTED, GRID = (COLORS[name][0] for name in ("ink", "muted", "grid"))
WIDTH, HEIGHT, DPI = 6.4, 3.5, 160
ABOVE, BELOW = 0.76, 0.46
"""Inches above the axes, for the title and the stages' names, and below."""
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "prism",
}


def color(name: str) -> str:
    """The light one, which `to_svg` turns into a variable."""
    return COLORS[name][0]


def new_axes(title: str, height: float = HEIGHT, left: float = 0.095, right: float = 0.755) -> tuple[Figure, Axes]:
    """A figure with one pair of axes between `left` and `right`, which leaves room there for labels at the ends of lines."""
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.2 / height, title, fontsize=11.5, fontweight="bold", va="center")
    return figure, figure.add_axes((left, BELOW / height, right - left, 1 - (BELOW + ABOVE) / height))


def to_png(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=DPI, metadata={"Software": "prism"})


def to_svg(figure: Figure, label: str) -> str:
    """For the page: without a background, in the page's font and colours, described for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"([^>]*?) width="[^"]*"', r"\1\2", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"([^>]*?) height="[^"]*"', r"\1\2", svg, count=1)
    svg = re.sub(r"(font(?:-family)?:[^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", svg)
    for name, (light, _) in COLORS.items():
        svg = svg.replace(light, f"var(--{name})")
    return _without_unused_ids(svg).replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def css_variables(dark: bool) -> str:
    return " ".join(f"--{name}: {shades[dark]};" for name, shades in COLORS.items())


def _without_unused_ids(svg: str) -> str:
    """Several figures share one page, and matplotlib numbers the parts of each from 1."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    return re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)


def style() -> matplotlib.RcParams:
    """For `with matplotlib.rc_context(style())`."""
    return matplotlib.RcParams({**matplotlib.rcParamsDefault, **STYLE})
