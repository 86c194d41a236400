"""A status as text for people: the columns `kubectl get` prints, then the stages and the conditions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from prism_operator.api import PrismRunStatus, StageStatus
from prism_operator.timestamps import format_duration, parse_time

COLUMNS = ("NAME", "STAGE", "STATUS", "PROGRESS", "ATTEMPT", "GPUS", "AGE")
WIDE_COLUMNS = ("CHECKPOINT", "REASON", "STARTED")

_STYLES = {"Succeeded": "green", "Running": "cyan", "Failed": "red", "Refused": "red", "Skipped": "dim", "Pending": "dim"}
Document = dict[str, Any]


def runs_table(runs: Iterable[tuple[Document, PrismRunStatus]], now: datetime, wide: bool = False) -> Table:
    """One row a run."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in COLUMNS + (WIDE_COLUMNS if wide else ()):
        table.add_column(column, no_wrap=not wide, overflow="fold")
    for document, status in runs:
        table.add_row(*_row(document, status, now), *(_wide_row(status) if wide else ()))
    return table


def _row(document: Document, status: PrismRunStatus, now: datetime) -> list[str]:
    created = parse_time(document["metadata"].get("creationTimestamp"))
    return [
        document["metadata"]["name"],
        status.stage or "-",
        status.summary,
        str(status.progress),
        str(status.attempt) if status.attempt else "-",
        str(status.gpus),
        format_duration((now - created).total_seconds()) if created else "-",
    ]


def _wide_row(status: PrismRunStatus) -> list[str]:
    return [status.checkpoint.uri if status.checkpoint else "-", status.reason or "-", status.started_at or "-"]


def run_details(run: tuple[Document, PrismRunStatus], now: datetime, wide: bool = False) -> Group:
    """One run: its row, its stages, its conditions, and the sentence that says what goes on."""
    status = run[1]
    parts: list[Any] = [runs_table([run], now, wide), "", _stages(status), "", _conditions(status, now)]
    if status.message:
        parts += ["", Text(status.message)]
    return Group(*parts)


def _stages(status: PrismRunStatus) -> Tree:
    tree = Tree("STAGES", guide_style="dim")
    for stage in status.stages:
        branch = tree.add(_stage_line(stage))
        for attempt in stage.attempts:
            kind = f" ({attempt.failure_class})" if attempt.failure_class else ""
            told = f": {attempt.message}" if attempt.message and attempt.outcome != "Succeeded" else ""
            branch.add(Text(f"attempt {attempt.number}  {attempt.outcome}{kind}{told}"))
        if stage.checkpoint is not None:
            digest = f"  {stage.checkpoint.digest[:19]}" if stage.checkpoint.digest else ""
            branch.add(Text(f"{stage.checkpoint.uri}{digest}", style="dim"))
    return tree


def _stage_line(stage: StageStatus) -> Text:
    steps = f"  step {stage.step}" + (f" of {stage.total_steps}" if stage.total_steps else "") if stage.step else ""
    phase = f"  {stage.phase}" if stage.phase else ""
    eta = f"  {format_duration(stage.eta_seconds)} left" if stage.eta_seconds is not None else ""
    state = Text(stage.state, style=_STYLES.get(stage.state, ""))
    return Text.assemble(f"{stage.name}  ", state, f"{steps}{phase}{eta}")


def _conditions(status: PrismRunStatus, now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("CONDITION", "STATUS", "SINCE", "REASON"):
        table.add_column(column, no_wrap=True)
    for condition in status.conditions:
        since = parse_time(condition.last_transition_time)
        age = format_duration((now - since).total_seconds()) if since else "-"
        table.add_row(condition.type, condition.status, age, condition.reason)
    return table
