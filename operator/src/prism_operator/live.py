"""What `prism run` shows while a run is under way: a row a stage on a terminal, plain lines anywhere else.

It is given the status several times a second and keeps nothing that the status does not tell, except when it last printed a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prism_operator.api import PrismRunStatus, StageStatus
from prism_operator.timestamps import parse_time
from prism_operator.wording import SPACE, duration, number

METRICS: dict[str, dict[str, str]] = {
    "sft": {"loss": "loss", "lr": "lr", "tokens_per_second": "tokens/s"},
    "discriminator": {"loss": "loss", "pair_acc": "accuracy", "held_out/acc": "held-out", "held_out/gap": "gap"},
    "alignment": {
        "critic/caption_gap": "caption gap",
        "critic/cot_gap": "cot gap",
        "reward/acc_reward/mean": "accuracy",
        "reward/format_valid_ratio": "format",
    },
    "rlvr": {"reward/mean": "reward", "reward/acc_reward/mean": "accuracy", "response_length/mean": "tokens", "actor/entropy": "entropy"},
}
"""By kind of stage, the metrics worth watching and what they are called in a narrow column."""
ACCURACY = "accuracy/"
"""Before the names of an evaluation's checkpoints."""
SHOWN_METRICS = 4

MARKS = {"Pending": "·", "Succeeded": "✓", "Skipped": "↷", "Failed": "✗", "Stopped": "■"}
STYLES = {
    "Succeeded": "green",
    "Failed": "red",
    "Retrying": "yellow",
    "Stopping": "yellow",
    "Stopped": "yellow",
    "Pending": "dim",
    "Skipped": "dim",
}
LIVE_STATES = ("Running", "Retrying", "Stopping")
DONE_STATES = ("Succeeded", "Skipped")
BAR_WIDTH = 18
GAP = 2
WIDE = 145
"""Columns from which metrics stand in the stage's row; below, the running stage's have a line of their own."""
LINE_SECONDS = 15.0
LINES_A_STAGE = 10
LINE_BACKOFF = 0.01
"""Plain lines come every tenth of a stage or every 15 s, and every hundredth of a long run, whose log would be nothing else."""

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class RunDisplay:
    """`with RunDisplay(console, plain) as display: ... display.update(status)`."""

    def __init__(self, console: Console, plain: bool, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._live = None if plain or not console.is_terminal else Live(console=console, auto_refresh=False)
        self._lines = PlainLines(console, clock())
        self._console = console

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def update(self, status: PrismRunStatus) -> None:
        """Shows the status as it is now."""
        now = self._clock()
        if self._live:
            self._live.update(render(status, now, self._console.width), refresh=True)
        else:
            self._lines.update(status, now)


def render(status: PrismRunStatus, now: datetime, width: int) -> RenderableType:
    """One row a stage, then the run."""
    cells = [_cells(stage, now) for stage in status.stages]
    taken = sum(max((column.cell_len for column in columns), default=0) + GAP for columns in zip(*cells, strict=True))
    metrics = [Text(watched(stage), style="dim" if stage.state in DONE_STATES else "") for stage in status.stages]
    in_row = width >= WIDE
    for text in metrics:
        text.truncate(max(0, width - taken - BAR_WIDTH - GAP if in_row else width - GAP), overflow="ellipsis")
    bar_width = min(BAR_WIDTH, max(0, width - taken - GAP))
    table = Table.grid(padding=(0, GAP, 0, 0))
    for justify in ("left", "left", "right", "right", "left", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for stage, (name, *others), text in zip(status.stages, cells, metrics, strict=True):
        table.add_row(name, _bar(stage, bar_width), *others, text if in_row else Text())
    below = [] if in_row else [Padding(text, (0, 0, 0, 2)) for stage, text in zip(status.stages, metrics, strict=True) if _is_live(stage)]
    total = sum(elapsed(stage, now) for stage in status.stages)
    foot = Text(f"{status.summary}, {status.progress}{SPACE}% of the run, {duration(total)} in stages", style="dim")
    return Group(table, *below, foot)


def stage_rows(stages: Sequence[StageStatus], now: datetime, width: int) -> list[RenderableType]:
    """The same rows, each on its own and all in the same columns, so that more about a stage can stand below its row."""
    cells = [_cells(stage, now) for stage in stages]
    widths = [max((column.cell_len for column in columns), default=0) for columns in zip(*cells, strict=True)]
    bar_width = min(BAR_WIDTH, max(0, width - sum(widths) - GAP * len(widths)))
    return [_alone(stage, row, widths, bar_width) for stage, row in zip(stages, cells, strict=True)]


def _alone(stage: StageStatus, cells: Sequence[Text], widths: Sequence[int], bar_width: int) -> Table:
    table = Table.grid(padding=(0, GAP, 0, 0))
    for column, cell_width in enumerate((widths[0], bar_width, *widths[1:])):
        table.add_column(justify="right" if column in (2, 3) else "left", no_wrap=True, min_width=cell_width)
    name, *others = cells
    table.add_row(name, _bar(stage, bar_width), *others)
    return table


def _cells(stage: StageStatus, now: datetime) -> tuple[Text, Text, Text, Text, Text]:
    """A stage's row without its bar and its metrics."""
    return _name(stage), Text(_steps(stage)), Text(_time(stage, now)), Text(_left(stage)), _phase(stage)


def _is_live(stage: StageStatus) -> bool:
    return stage.state in LIVE_STATES


def _name(stage: StageStatus) -> Text:
    return Text(f"{MARKS.get(stage.state, '▸')} {stage.name}", style=STYLES.get(stage.state, "bold"))


def _bar(stage: StageStatus, width: int) -> ProgressBar:
    """A bar that pulses would tell of work that may not be done; an unknown total is an empty bar."""
    total = stage.total_steps or 1
    done = total if stage.state in DONE_STATES else stage.step if stage.total_steps else 0
    return ProgressBar(total=total, completed=done, width=width)


def _steps(stage: StageStatus) -> str:
    return f"{stage.step:,}/{stage.total_steps:,}" if stage.total_steps else ""


def _time(stage: StageStatus, now: datetime) -> str:
    return duration(elapsed(stage, now)) if stage.attempts else ""


def _left(stage: StageStatus) -> str:
    return f"{duration(stage.eta_seconds)} left" if stage.eta_seconds is not None and _is_live(stage) else ""


def _phase(stage: StageStatus) -> Text:
    text = (
        stage.phase if stage.state == "Running" and stage.phase else "" if stage.state in ("Succeeded", "Pending") else stage.state.lower()
    )
    attempt = f", attempt {stage.attempts[-1].number}" if _is_live(stage) and len(stage.attempts) > 1 else ""
    return Text(text + attempt, style=STYLES.get(stage.state, "cyan"))


def watched(stage: StageStatus) -> str:
    """`loss 0.321, accuracy 0.94`: the metrics worth watching, or the first few of a stage that has none of them.

    An evaluation has an accuracy a checkpoint, once that is measured; until then it counts what its judges did, which says nothing alone.
    """
    measured = {name: f"accuracy of {name.removeprefix(ACCURACY)}" for name in stage.metrics if name.startswith(ACCURACY)}
    labels = measured if stage.kind == "evaluation" else METRICS.get(stage.kind, {})
    known = {label: stage.metrics[name] for name, label in labels.items() if name in stage.metrics}
    others = {} if stage.kind == "evaluation" else stage.metrics
    chosen = list((known or others).items())[:SHOWN_METRICS]
    return ", ".join(f"{name} {number(value)}" for name, value in chosen)


def elapsed(stage: StageStatus, now: datetime) -> float:
    """Seconds in attempts; the time between them is nobody's work."""
    spans = ((parse_time(attempt.started_at), parse_time(attempt.finished_at) or now) for attempt in stage.attempts)
    return sum(max(0.0, (end - start).total_seconds()) for start, end in spans if start)


class PlainLines:
    """A line when a stage starts, now and then while it runs, and when its state changes."""

    def __init__(self, console: Console, started: datetime) -> None:
        self._console = console
        self._started = started
        self._states: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        self._last_time = started
        self._last_tenth = 0

    def update(self, status: PrismRunStatus, now: datetime) -> None:
        for stage in status.stages:
            before = self._states.get(stage.name, "Pending")
            if stage.state == "Running" and _attempt(stage) > self._attempts.get(stage.name, _attempt(stage)):
                before = "Retrying"  # between two looks it failed and was started again
            if stage.state != before or (_is_live(stage) and self._is_due(stage, now)):
                self._print(stage, before, status.message, now)
            self._states[stage.name], self._attempts[stage.name] = stage.state, _attempt(stage)

    def _is_due(self, stage: StageStatus, now: datetime) -> bool:
        waited = (now - self._last_time).total_seconds()
        patience = max(LINE_SECONDS, LINE_BACKOFF * (now - self._started).total_seconds())
        return waited >= patience or _tenth(stage) > self._last_tenth

    def _print(self, stage: StageStatus, before: str, message: str, now: datetime) -> None:
        self._last_time, self._last_tenth = now, _tenth(stage)
        since = duration((now - self._started).total_seconds())
        line = f"[{since:>7}] {stage.name:<14} {_told(stage, before, message, now)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _share(stage: StageStatus) -> float:
    return stage.step / stage.total_steps if stage.total_steps else 0.0


def _tenth(stage: StageStatus) -> int:
    """In whole numbers, as ten times a tenth is not one."""
    return stage.step * LINES_A_STAGE // stage.total_steps if stage.total_steps else 0


def _attempt(stage: StageStatus) -> int:
    return max([1, *(attempt.number for attempt in stage.attempts)])


def _why_again(stage: StageStatus) -> str:
    """What became of the attempt before, if it failed."""
    before = stage.attempts[-2] if len(stage.attempts) > 1 else None
    return f"; attempt {before.number} failed ({before.failure_class}): {before.message}" if before and before.failure_class else ""


def _told(stage: StageStatus, before: str, message: str, now: datetime) -> str:
    """What a plain line says after the stage's name."""
    metrics = f": {watched(stage)}" if watched(stage) else ""
    match stage.state:
        case "Succeeded" if before == "Pending":
            return f"is complete already ({stage.step:,} steps)"
        case "Succeeded":
            return f"succeeded after {stage.step:,} steps in {duration(elapsed(stage, now))}{metrics}"
        case "Skipped":
            return "skipped, its checkpoint is given"
        case "Running" if stage.state != before:
            return f"started, attempt {_attempt(stage)}{_why_again(stage)}"
        case "Running":
            left = f", {_left(stage)}" if _left(stage) else ""
            steps = f" {_steps(stage)} ({100 * _share(stage):.0f}{SPACE}%)" if stage.total_steps else ""
            return f"{stage.phase or 'running'}{steps}{left}{metrics}"
        case state:
            return f"{state.lower()}: {message}"
