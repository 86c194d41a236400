"""A status as text for people: the columns `kubectl get` prints, the stages with their attempts, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from prism_operator import reasons
from prism_operator.api import AttemptStatus, Condition, PrismRunStatus, StageStatus
from prism_operator.live import LIVE_STATES, STYLES, stage_rows, watched
from prism_operator.timestamps import format_duration, parse_time
from prism_operator.wording import SPACE, duration, short_digest

COLUMNS = ("NAME", "STAGE", "STATUS", "PROGRESS", "ATTEMPT", "GPUS", "AGE")
WIDE_COLUMNS = ("QUEUE", "CLUSTER", "CHECKPOINT", "REASON", "STARTED")
PIPED_WIDTH = 240
"""Where no terminal says how wide it is: whoever reads a pipe searches lines, and a broken line is not found."""

Document = dict[str, Any]


def make_console() -> Console:
    """For standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, PIPED_WIDTH))


def runs_table(runs: Iterable[tuple[Document, PrismRunStatus]], now: datetime, wide: bool = False, namespaces: bool = False) -> Table:
    """One row a run."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in (("NAMESPACE",) if namespaces else ()) + COLUMNS + (WIDE_COLUMNS if wide else ()):
        table.add_column(column, no_wrap=not wide, overflow="fold")
    for document, status in runs:
        where = (document["metadata"].get("namespace", "-"),) if namespaces else ()
        table.add_row(*where, *_row(document, status, now), *(_wide_row(document, status) if wide else ()))
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
        _since(created, now),
    ]


def _wide_row(document: Document, status: PrismRunStatus) -> list[str]:
    queue = ((document.get("spec") or {}).get("queue") or {}).get("name", "-")
    checkpoint = status.checkpoint.uri if status.checkpoint else "-"
    return [queue, status.cluster or "-", checkpoint, status.reason or "-", status.started_at or "-"]


def run_details(run: tuple[Document, PrismRunStatus], now: datetime, width: int, wide: bool = False) -> Group:
    """One run: its row, its stages and their attempts, the conditions that are not as they should be, and the sentence that says what
    goes on. Wide: every condition."""
    status = run[1]
    parts: list[RenderableType] = [runs_table([run], now, wide)]
    if status.stages:
        parts += ["", _stages(status, now, width)]
    shown = status.conditions if wide else tuple(condition for condition in status.conditions if _is_amiss(condition, status))
    if shown:
        parts += ["", _conditions(shown, status, now)]
    if status.message:
        parts += ["", Text(status.message)]
    return Group(*parts)


def _stages(status: PrismRunStatus, now: datetime, width: int) -> Tree:
    tree = Tree("", guide_style="dim", hide_root=True)
    for stage, row in zip(status.stages, stage_rows(status.stages, now, width), strict=True):
        branch = tree.add(row)
        if stage.state in LIVE_STATES and stage.metrics:
            branch.add(Text(watched(stage)))
        for attempt in stage.attempts:
            branch.add(_attempt(attempt, now))
        if stage.checkpoint is not None:
            digest = f"  {short_digest(stage.checkpoint.digest)}" if stage.checkpoint.digest else ""
            branch.add(Text(f"{stage.checkpoint.uri}{digest}", style="dim", overflow="fold"))
    return tree


def _attempt(attempt: AttemptStatus, now: datetime) -> RenderableType:
    """How it went, then what it took; on one line where there is nothing to tell in between."""
    kind = f" ({attempt.failure_class})" if attempt.failure_class else f" ({attempt.stop_reason})" if attempt.stop_reason else ""
    told = f": {attempt.message}" if attempt.message and attempt.outcome != "Succeeded" else ""
    style = STYLES.get(attempt.outcome, "cyan" if attempt.outcome == "Running" else "")
    head = Text.assemble(f"attempt {attempt.number}  ", (attempt.outcome + kind, style), told)
    facts = Text(", ".join(_facts(attempt, now)), style="dim")
    return Group(head, Padding(facts, (0, 0, 0, 2), expand=False)) if told else Text.assemble(head, "  ", facts)


def _facts(attempt: AttemptStatus, now: datetime) -> Iterator[str]:
    started, finished = parse_time(attempt.started_at), parse_time(attempt.finished_at)
    if started:
        yield f"started {_since(started, now)} ago"
    if started and finished:
        yield f"took {duration((finished - started).total_seconds())}"
    if attempt.gpu_seconds:
        yield f"{attempt.gpu_seconds:,.0f}{SPACE}GPU-seconds"
    if attempt.cluster:
        yield attempt.cluster
    if attempt.resume_from:
        yield f"resumed from {'/'.join(attempt.resume_from.rstrip('/').split('/')[-2:])}"
    if attempt.restarts:
        counts = ", ".join(f"{num} x {failure_class}" for failure_class, num in sorted(attempt.restarts.items()))
        yield f"restarted in its pods after {counts}"


def _is_amiss(condition: Condition, status: PrismRunStatus) -> bool:
    """What a person would want to know: no condition that only says that the run is under way, or waits for its turn."""
    match condition.type:
        case reasons.FINISHED:
            return False
        case reasons.STALLED | reasons.SUSPENDED:
            return condition.status == "True"
        case reasons.CLUSTER_READY:
            return condition.status == "False" and status.summary in ("Pending", "Running", "Retrying") and bool(status.stages)
        case _:
            return condition.status == "False"


def _conditions(conditions: Iterable[Condition], status: PrismRunStatus, now: datetime) -> Table:
    """A message that is the run's own stands below the table."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("CONDITION", "STATUS", "SINCE", "REASON"):
        table.add_column(column, no_wrap=True)
    table.add_column("MESSAGE", overflow="fold")
    for condition in conditions:
        message = "" if condition.message in status.message else condition.message
        since = _since(parse_time(condition.last_transition_time), now)
        table.add_row(condition.type, condition.status, since, condition.reason, Text(message))
    return table


def _since(time: datetime | None, now: datetime) -> str:
    return format_duration((now - time).total_seconds()) if time else "-"


def current_stage(status: PrismRunStatus) -> StageStatus | None:
    """The one under way, else the last that was tried."""
    tried = [stage for stage in status.stages if stage.attempts]
    return next((stage for stage in status.stages if stage.name == status.stage and stage.attempts), tried[-1] if tried else None)
