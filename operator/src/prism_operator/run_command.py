"""What `prism run` prints around a run: problems before it, the display during it, the table and the way on after it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.decide import Phase
from prism_operator.local.machine import this_machine
from prism_operator.local.runner import Ended, run_locally
from prism_operator.validate import validate_file

if TYPE_CHECKING:
    from prism_operator.live import RunDisplay


WIDEST_TABLE = 240
"""Tables are as wide as their content: nine columns broken into an 80-column terminal can be read by nobody, long lines can."""


def run_file(file: Path, redo: bool, run_dir: Path | None, plain: bool) -> int:
    """The exit code."""
    machine = this_machine()
    validated = validate_file(file, machine)
    if validated.problems or validated.run is None:
        for line in validated.lines():
            print(line, file=sys.stderr)
        print(f"prism: {file} cannot be run as it stands; nothing was started", file=sys.stderr)
        return 2
    folder = (machine.cwd / (run_dir or _storage_path(validated.run))).resolve()
    console = Console()
    with _display(console, plain or not console.is_terminal) as display:
        ended = run_locally(validated.raw, validated.text, folder, machine, redo=redo, show=display.update)
    _print_end(ended, folder, console)
    return ended.exit_code


def _storage_path(run: PrismRun) -> Path:
    assert run.spec.storage.local is not None
    return Path(run.spec.storage.local.path).expanduser()


@contextmanager
def _display(console: Console, plain: bool) -> Iterator[RunDisplay]:
    from prism_operator.live import RunDisplay

    with RunDisplay(console, plain) as display:
        yield display


def _print_end(ended: Ended, run_dir: Path, console: Console) -> None:
    status = ended.status
    if ended.phase is not Phase.SUCCEEDED:
        print(f"prism: {ended.phase.value.lower()}: {status.message}", file=sys.stderr)
        return
    _print_results(run_dir, status, console)


def _print_results(run_dir: Path, status: PrismRunStatus, console: Console) -> None:
    """The run is complete whatever the report says: drawing it must not turn success into failure."""
    from prism_operator.report import summary_tables, write_report

    try:
        for table in summary_tables(run_dir):
            table.width = console.measure(table, options=console.options.update(width=WIDEST_TABLE)).maximum
            console.print(table, crop=False)
        console.print(f"report: {write_report(run_dir)}", soft_wrap=True, highlight=False)
    except Exception as error:
        print(f"prism: the run is complete, and its report could not be drawn: {error}", file=sys.stderr)
    width = max(len(stage.name) for stage in status.stages)
    for stage in status.stages:
        if stage.checkpoint is not None:
            console.print(f"{stage.name:<{width}}  {stage.checkpoint.uri}", soft_wrap=True, highlight=False)
