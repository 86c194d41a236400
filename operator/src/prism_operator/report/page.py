"""Puts the report together: reads the folder, draws the charts, fills in the page. One file, which opens without a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from prism_operator import names, wording
from prism_operator.report import benchmarks, lineage, summary
from prism_operator.report.canvas import css_variables, style, to_png, to_svg
from prism_operator.report.charts import make_charts
from prism_operator.report.configuration import settings
from prism_operator.report.figures import draw_chart, draw_evaluation
from prism_operator.report.images import find_images
from prism_operator.report.record import RunRecord
from prism_operator.report.responses import compare, split_tags
from prism_trainer.contract.paper import TITLES

REPORT = "report.html"
PLOTS = "plots"


@dataclass(frozen=True)
class Plate:
    """A figure on the page, with its caption."""

    name: str
    svg: Markup
    caption: str


def write_page(run: RunRecord, run_dir: Path) -> Path:
    """`report.html` and `plots/*.png`. The page replaces the old one only when it is whole."""
    figures = _draw(run, run_dir / PLOTS)
    text = _environment().get_template("report.html.j2").render(_content(run, run_dir, figures))
    unfinished = run_dir / f".{REPORT}.unfinished"
    unfinished.write_text(text, encoding="utf-8")
    return unfinished.replace(run_dir / REPORT)


def _draw(run: RunRecord, folder: Path) -> list[Plate]:
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(style()):
        return [_plate(name, caption, figure, folder) for name, caption, figure in _figures(run)]


def _figures(run: RunRecord) -> Iterator[tuple[str, str, Figure]]:
    if rows := [row.measured for row in summary.stage_rows(run) if row.measured]:
        kinds = {stage.name: stage.kind for stage in run.stages}
        yield "accuracy", summary.evaluation_sentence(rows), draw_evaluation(rows, kinds)
    for chart in make_charts(run):
        yield chart.spec.name, chart.caption, draw_chart(chart)


def _plate(name: str, caption: str, figure: Figure, folder: Path) -> Plate:
    to_png(figure, folder / f"{name}.png")
    return Plate(name, Markup(to_svg(figure, caption)), caption)  # our own drawing, whose texts matplotlib has escaped


def _content(run: RunRecord, run_dir: Path, figures: list[Plate]) -> dict[str, Any]:
    """Everything the template names."""
    rows = summary.stage_rows(run)
    measured = [row.name for row in rows if row.measured] or list(dict.fromkeys(row.stage for row in run.benchmarks))
    responses = compare(run.samples, measured, [row.stage for row in run.main_line] or measured)
    return {
        "run": run,
        "headline": summary.run_headline(run),
        "benchmarks": [TITLES[name] for name in benchmarks.benchmarks_of(run)],
        "lines": benchmarks.lines(run),
        "paper_note": benchmarks.PAPER_NOTE,
        "differences": benchmarks.differences(run),
        "sub_scores": benchmarks.sub_scores(run),
        "titles": TITLES,
        "rows": rows,
        "seconds": sum(row.seconds for row in rows),
        "steps": sum(row.steps for row in rows),
        "figures": figures,
        "responses": responses,
        "images": find_images(run, [comparison.prompt.prompt_id for comparison in responses.shown] if responses else []),
        "checkpoints": [
            (entry.folder.relative_to(names.checkpoints_uri(str(run_dir))).as_posix(), entry.manifest) for entry in lineage.in_order(run)
        ],
        "digests": {entry.manifest.digest for entry in run.checkpoints},
        "chain": lineage.chain(run),
        "versions": _versions(run),
        "light": Markup(css_variables(dark=False)),
        "dark": Markup(css_variables(dark=True)),
    }


def _versions(run: RunRecord) -> dict[str, str]:
    """Of the checkpoint committed last."""
    newest = max(run.checkpoints, key=lambda entry: entry.manifest.provenance.created_at, default=None)
    return newest.manifest.provenance.versions if newest else run.status.provenance.versions


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prism_operator"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        duration=wording.duration,
        percent=wording.percent,
        when=wording.when,
        size=wording.size,
        digest=wording.short_digest,
        split_tags=split_tags,
        settings=settings,
        total_bytes=lineage.total_bytes,
        probability=wording.probability,
    )
    environment.globals["interval"] = wording.interval
    return environment
