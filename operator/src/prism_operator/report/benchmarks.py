"""The benchmarks of a run as tables: checkpoints by benchmark, the paper's rows beside them, and how checkpoints differ. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from prism_operator.report.record import RunRecord
from prism_operator.wording import interval, percent, points, probability
from prism_trainer.contract.paper import BENCHMARKS, TITLES, PaperRow, paper_results
from prism_trainer.contract.results import Comparison, EvaluationRow

NOTHING = "–"
OWN_DATA = "held-out data"
PAPER_NOTE = (
    "The paper's rows are single sampled runs without intervals, partly of other sub-scores: neighbours, not a baseline to test against."
)


@dataclass(frozen=True)
class Line:
    """A model with its score on each benchmark of the table, as written, and the mean of those scores."""

    name: str
    cells: tuple[str, ...]
    average: str
    is_paper: bool = False


@dataclass(frozen=True)
class Difference:
    """One comparison, with where it belongs."""

    benchmark: str
    stage: str
    found: Comparison

    @property
    def title(self) -> str:
        return TITLES.get(self.benchmark, self.benchmark) or OWN_DATA

    @property
    def written(self) -> str:
        return f"{points(self.found.difference)} ({points(self.found.ci_low)} to {points(self.found.ci_high)})"


def benchmarks_of(run: RunRecord) -> tuple[str, ...]:
    """Those that were run, in the paper's order."""
    return tuple(name for name in BENCHMARKS if any(row.benchmark == name for row in run.benchmarks))


def lines(run: RunRecord) -> list[Line]:
    """The run's checkpoints, then the paper's models; nothing where no benchmark was run."""
    names = benchmarks_of(run)
    stages = dict.fromkeys(row.stage for row in run.benchmarks)
    if not names:
        return []
    return [_own(run, stage, names) for stage in stages] + [_of_paper(row, names) for row in paper_results() if row.table == "main"]


def _own(run: RunRecord, stage: str, names: Sequence[str]) -> Line:
    """The mean only where every benchmark was measured: a mean over others could not be compared."""
    found = {row.benchmark: row for row in run.benchmarks if row.stage == stage}
    cells = tuple(interval(row.accuracy, row.ci_low, row.ci_high) if (row := found.get(name)) else NOTHING for name in names)
    is_whole = all(name in found for name in names)
    return Line(stage, cells, percent(sum(found[name].accuracy for name in names) / len(names)) if is_whole else NOTHING)


def _of_paper(row: PaperRow, names: Sequence[str]) -> Line:
    scores = [score for name, score in row.scores.items() if name in names]
    return Line(
        f"paper: {row.size} {row.model}", tuple(percent(score / 100) for score in scores), percent(sum(scores) / len(scores) / 100), True
    )


def differences(run: RunRecord, *, brief: bool = False) -> list[Difference]:
    """Every pair of checkpoints; brief: each with the one evaluated before it, and with the first."""
    found = []
    for row in (*run.rows, *run.benchmarks):
        compared = row.compared if not brief else tuple(dict.fromkeys((*row.compared[:1], *row.compared[-1:])))
        found += [Difference(row.benchmark, row.stage, one) for one in compared]
    return found


def sub_scores(run: RunRecord) -> list[tuple[EvaluationRow, list[tuple[str, str]]]]:
    """Each row that has sub-scores, with them as written."""
    return [
        (row, [(name, interval(score.value, score.ci_low, score.ci_high)) for name, score in row.scores.items()])
        for row in run.benchmarks
        if row.scores
    ]


def headline(run: RunRecord) -> str:
    """Where there are benchmarks and no held-out data: the mean of the first and the last checkpoint."""
    own = [line for line in lines(run) if not line.is_paper and line.average != NOTHING]
    count = len(benchmarks_of(run))
    over = "the benchmark" if count == 1 else f"{count} benchmarks"
    if not own:
        return "No checkpoint has been evaluated on all benchmarks yet."
    if len(own) == 1:
        return f"Mean score on {over} is {own[0].average} after {own[0].name}."
    return f"Mean score on {over} went from {own[0].average} after {own[0].name} to {own[-1].average} after {own[-1].name}."


def make_tables(run: RunRecord) -> Iterator[Table]:
    """For the end of `prism run`, where there is something to show."""
    if found := lines(run):
        table = _table("Benchmarks", PAPER_NOTE)
        table.add_column("model")
        for name in benchmarks_of(run):
            table.add_column(TITLES[name], justify="right")
        table.add_column("mean", justify="right")
        for line in found:
            table.add_row(line.name, *line.cells, line.average, style="dim" if line.is_paper else None)
        yield table
    if compared := differences(run, brief=True):
        yield _differences(compared)


def _differences(compared: Sequence[Difference]) -> Table:
    caption = "Paired by problem; p from sign-flip permutations, two-sided, not corrected for the number of comparisons."
    table = _table("Differences between checkpoints", caption)
    for title in ("measured on", "checkpoint", "against"):
        table.add_column(title)
    for title in ("difference in points", "p"):
        table.add_column(title, justify="right")
    for one in compared:
        table.add_row(one.title, one.stage, one.found.against, one.written, probability(one.found.p_value))
    return table


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.title_justify = table.caption_justify = "left"
    return table
