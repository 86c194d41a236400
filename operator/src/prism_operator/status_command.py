"""`prism status`, wherever the runs are: shown once, for machines too, or again and again until they are finished."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from prism_operator.api import PrismRunStatus
from prism_operator.errors import ClusterError, PrismError
from prism_operator.live import RunDisplay
from prism_operator.local.inspection import find_runs, inspect_run
from prism_operator.reasons import FINISHED
from prism_operator.status_table import make_console, run_details, runs_table

OUTPUTS = ("wide", "json", "yaml")
READ_SECONDS = 2.0
DRAW_SECONDS = 1.0
"""Durations go on between two looks."""
FAILED = 1
QUIET = ("Pending", "Suspended", "Refused", "Succeeded")
"""Of which no stage's line tells."""

Shown = tuple[dict[str, Any], PrismRunStatus]
Read = Callable[[], list[Shown]]


class UnknownOutputError(PrismError):
    """Asked for a form there is not."""

    exit_code = 2


@dataclass(frozen=True)
class View:
    """How it is shown."""

    output: str = ""
    namespaces: bool = False
    one: bool = False
    """A run was named; a list of one is still a list."""

    def __post_init__(self) -> None:
        if self.output not in ("", *OUTPUTS):
            raise UnknownOutputError(f"--output is '{self.output}'; expected wide, json or yaml")

    def render(self, runs: Sequence[Shown], now: datetime, width: int) -> RenderableType:
        """For people."""
        wide = self.output == "wide"
        return run_details(runs[0], now, width, wide) if self.one else runs_table(runs, now, wide, self.namespaces)


def show_local(target: Path, output: str, watch: bool) -> int:
    """`prism status` of runs on this machine: one run folder, or all below."""
    view = View(output, one=len(find_runs(target)) == 1)

    def read() -> list[Shown]:
        found = (inspect_run(run_dir) for run_dir in find_runs(target))
        return [({**document, "status": status.to_dict()}, status) for document, status in found]

    if watch:
        return watch_runs(read, view)
    print_runs(read(), view)
    return 0


def print_runs(runs: Sequence[Shown], view: View) -> None:
    """Once."""
    if view.output in ("json", "yaml"):
        _print_documents([document for document, _ in runs], view)
        return
    console = make_console()
    console.print(view.render(runs, datetime.now(UTC), console.width))


def _print_documents(documents: list[dict[str, Any]], view: View) -> None:
    shown: Any = documents[0] if view.one else {"apiVersion": "v1", "kind": "List", "items": documents}
    if view.output == "json":
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    import yaml

    typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


def watch_runs(read: Read, view: View) -> int:
    """Until every run is finished. 1 where one of them failed, as a script would ask."""
    console = make_console()
    if view.output in ("json", "yaml"):
        raise UnknownOutputError(f"--watch draws for people; leave out --output {view.output}, or use kubectl get --watch")
    if not console.is_terminal and not view.one:
        raise UnknownOutputError("--watch of several runs needs a terminal; name one run")
    runs = _watch_on_terminal(read, view, console) if console.is_terminal else _watch_in_lines(read, console)
    return FAILED if any(status.summary == "Failed" for _, status in runs) else 0


def _watch_on_terminal(read: Read, view: View, console: Console) -> list[Shown]:
    runs, trouble = read(), ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            for _ in range(round(READ_SECONDS / DRAW_SECONDS)):
                drawn = view.render(runs, datetime.now(UTC), console.width)
                live.update(Group(drawn, Text(trouble, style="yellow")) if trouble else drawn, refresh=True)
                if _is_over(runs):
                    return runs
                time.sleep(DRAW_SECONDS)
            runs, trouble = _read_again(read, runs)


def _watch_in_lines(read: Read, console: Console) -> list[Shown]:
    runs, told = read(), {""}
    with RunDisplay(console, plain=True) as display:
        while True:
            status = runs[0][1]
            display.update(status)
            if status.summary in QUIET and status.message not in told:
                told.add(status.message)
                console.print(status.message, markup=False, soft_wrap=True)
            if _is_over(runs):
                return runs
            time.sleep(READ_SECONDS)
            runs, _ = _read_again(read, runs)


def _read_again(read: Read, before: list[Shown]) -> tuple[list[Shown], str]:
    """A cluster that does not answer for a while ends no watch; a run that is gone does."""
    try:
        return read(), ""
    except ClusterError as error:
        return before, f"{error}; trying again"


def _is_over(runs: Sequence[Shown]) -> bool:
    """Also where nobody carries a run out any more, as on one machine."""
    return all(status.is_true(FINISHED) or status.summary == "Stopped" for _, status in runs)
