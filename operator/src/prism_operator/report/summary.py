"""The headline: a row for each stage, and what the run achieved in a sentence. Shown in the terminal and on top of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from prism_operator.report import benchmarks
from prism_operator.report.record import RunRecord, StageRecord
from prism_operator.report.sentences import joined
from prism_operator.wording import duration, interval, percent
from prism_trainer.contract.results import EvaluationRow

NOTHING = "–"


@dataclass(frozen=True)
class StageRow:
    """A stage, or the base model where it was evaluated too."""

    name: str
    kind: str
    state: str
    attempts: int
    steps: int
    seconds: float
    measured: EvaluationRow | None


def stage_rows(run: RunRecord) -> list[StageRow]:
    """In the order of the run; evaluated checkpoints of no stage of it, as the base model is one, come first."""
    known = {stage.name for stage in run.stages}
    others = [StageRow(row.stage, NOTHING, NOTHING, 0, row.steps, row.seconds, row) for row in run.rows if row.stage not in known]
    return others + [
        StageRow(stage.name, stage.kind, run.state(stage), len(stage.attempts), _steps(stage), run.seconds(stage), run.row(stage.name))
        for stage in run.stages
    ]


def _steps(stage: StageRecord) -> int:
    """An evaluation counts batches, which are no optimizer steps."""
    return 0 if stage.kind == "evaluation" else stage.steps


def make_table(run: RunRecord) -> Table:
    """For the end of `prism run`."""
    table = Table(title=f"PrismRun {run.name}", caption=run_headline(run), box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("stage")
    for title in ("steps", "time", "held-out accuracy", "right format", "mean tokens"):
        table.add_column(title, justify="right")
    for row in stage_rows(run):
        table.add_row(row.name, f"{row.steps:,}" if row.steps else NOTHING, duration(row.seconds), *_measured(row.measured))
    return table


def _measured(row: EvaluationRow | None) -> tuple[str, str, str]:
    if row is None:
        return NOTHING, NOTHING, NOTHING
    return interval(row.accuracy, row.ci_low, row.ci_high), percent(row.format_rate), f"{row.mean_tokens:.1f}"


def run_headline(run: RunRecord) -> str:
    """Of held-out data where there is any, else of benchmarks."""
    return headline(run.main_line) if run.main_line or not run.benchmarks else benchmarks.headline(run)


def headline(rows: Sequence[EvaluationRow]) -> str:
    """The main line's first checkpoint against its last."""
    if not rows:
        return "No checkpoint has been evaluated yet."
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return f"Held-out accuracy is {interval(last.accuracy, last.ci_low, last.ci_high)} after {last.stage}."
    verb = "rose" if last.accuracy > first.accuracy else "fell" if last.accuracy < first.accuracy else "went"
    start, end = (interval(row.accuracy, row.ci_low, row.ci_high) for row in (first, last))
    return f"Held-out accuracy {verb} from {start} after {first.stage} to {end} after {last.stage}; the intervals {overlap(first, last)}."


def overlap(one: EvaluationRow, other: EvaluationRow) -> str:
    apart = one.ci_high < other.ci_low or other.ci_high < one.ci_low
    return "do not overlap" if apart else "overlap"


def evaluation_sentence(rows: Sequence[EvaluationRow]) -> str:
    """What each checkpoint reached, on how much."""
    measured = joined(f"{percent(row.accuracy)} ({percent(row.ci_low)} to {percent(row.ci_high)}) after {row.stage}" for row in rows)
    sizes = {(row.num_prompts, row.num_seeds) for row in rows}
    size = joined(f"{prompts:,} held-out prompts with {seeds} responses each" for prompts, seeds in sorted(sizes))
    return f"Measured on {size}: {measured}."
