"""What a run did, for people: `report.html` with its plots, and a table for the terminal.

    folder -> record -> charts, responses, lineage, summary -> figures -> page

Only `folder` reads, only `page` writes, and what is between them is values. Needs matplotlib and jinja2 (extra `report`), so the
command line imports it when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from prism_operator.report.benchmarks import make_tables
from prism_operator.report.folder import read_run
from prism_operator.report.page import write_page
from prism_operator.report.summary import make_table

__all__ = ["summary_tables", "write_report"]


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` and `plots/*.png` into the run folder, of whatever is there."""
    return write_page(read_run(run_dir), run_dir)


def summary_tables(run_dir: Path) -> tuple[Table, ...]:
    """Stage, steps, time, held-out accuracy with its interval, format rate, mean tokens; benchmarks and differences where there are any."""
    run = read_run(run_dir)
    return (make_table(run), *make_tables(run))
