"""`prism`: the command line. Each command reads its arguments, calls one function and prints; heavy modules are imported when needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from prism_operator.errors import PrismError

if TYPE_CHECKING:
    from prism_operator.api import PrismRunStatus

app = typer.Typer(
    name="prism",
    help="PRISM: post-train a vision-language model, stage by stage, from one PrismRun.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

File = Annotated[Path, typer.Argument(help="The PrismRun, a YAML file.", metavar="FILE")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Run folder, in place of spec.storage.local.path.")]


@app.command()
def run(
    file: File,
    redo: Annotated[bool, typer.Option("--redo", help="Do stages again whose configuration changed since they were committed.")] = False,
    run_dir: RunDir = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines in place of progress bars, also on a terminal.")] = False,
) -> None:
    """Run a PrismRun on this machine, or go on with it.

    Stages are child processes; all state is in the run folder. Ctrl-C asks the running stage to save and stop, a second one kills it.
    The same command again goes on from the last committed checkpoint. Exit code: 0 complete, 1 failed, 2 the file has problems,
    130 or 143 stopped by Ctrl-C or SIGTERM.
    """
    from prism_operator.run_command import run_file

    _exit_with(lambda: run_file(file, redo=redo, run_dir=run_dir, plain=plain))


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="PrismRuns, YAML files.", metavar="FILE...")],
    executor: Annotated[
        str, typer.Option("--for", help="local: also whether `prism run` can carry it out here. any: schema and plan only.")
    ] = "local",
) -> None:
    """Report every problem of each file at once, with its line and path. Exit code 1 if there is any."""
    from prism_operator.local.machine import this_machine
    from prism_operator.validate import validate_file

    if executor not in ("local", "any"):
        _fail(f"--for is '{executor}'; expected local or any", 2)
    found = [validate_file(file, this_machine() if executor == "local" else None) for file in files]
    for validated in found:
        for line in validated.lines():
            typer.echo(line)
        if not validated.problems and validated.run is not None:
            stages = ", ".join(stage.name for stage in validated.run.spec.stages)
            typer.echo(f"{validated.file}: valid; stages {stages}")
    num_problems = sum(len(validated.problems) for validated in found)
    if num_problems:
        _fail(f"{num_problems} {'problem' if num_problems == 1 else 'problems'}", 1)


@app.command()
def status(
    target: Annotated[
        Path, typer.Argument(help="Run folder or PrismRun file; by default every run under ./runs.", metavar="[DIR|FILE]")
    ] = Path("runs"),
    output: Annotated[str, typer.Option("--output", "-o", help="wide, json or yaml.")] = "",
) -> None:
    """Show a run as kubectl would: columns, stages, conditions. It reads the run folder, so it also works while nothing runs."""
    from prism_operator.local.inspection import find_runs, inspect_run

    def show() -> int:
        run_dirs = find_runs(target)
        inspected = [inspect_run(run_dir) for run_dir in run_dirs]
        _print_status(inspected, output)
        return 0

    _exit_with(show)


@app.command()
def logs(
    target: Annotated[Path, typer.Argument(help="Run folder or PrismRun file.", metavar="DIR|FILE")],
    stage: Annotated[str | None, typer.Option("--stage", help="Stage; by default the one that ran last.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Attempt; by default the last.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows, until the attempt ends.")] = False,
) -> None:
    """Print what a stage's process wrote."""
    from prism_operator.local.inspection import find_log, one_run, read_log

    def show() -> int:
        log = find_log(one_run(target), stage, attempt)
        for text in read_log(log, follow):
            sys.stdout.write(text)
            sys.stdout.flush()
        return 0

    _exit_with(show)


@app.command()
def operator() -> None:
    """Run the operator on a cluster, with the pod's own account or $KUBECONFIG. Its settings are environment variables, PRISM_*."""
    from prism_operator.kube.process import run_operator

    _exit_with(run_operator)


@app.command()
def new(
    file: Annotated[Path | None, typer.Argument(help="File to write; by default it is printed.", metavar="[FILE]")] = None,
    size: Annotated[str, typer.Option("--size", help="tiny, 4b or 8b.")] = "tiny",
    algorithm: Annotated[str, typer.Option("--algorithm", help="grpo, dapo or gspo.")] = "grpo",
    name: Annotated[str, typer.Option("--name", help="metadata.name.")] = "my-run",
) -> None:
    """Write a commented PrismRun to start from."""
    from prism_operator.new import write_prismrun

    if file is not None and file.exists():
        _fail(f"{file} exists; give another name or delete it", 1)
    try:
        text = write_prismrun(file, size, algorithm, name)
    except PrismError as error:
        _fail(str(error), error.exit_code)
    typer.echo(text if file is None else f"wrote {file}; next: prism validate {file}")


@app.command()
def report(target: Annotated[Path, typer.Argument(help="Run folder or PrismRun file.", metavar="DIR|FILE")]) -> None:
    """Write report.html and the plots of a run, also of one that is under way."""
    from prism_operator.local.inspection import one_run

    def write() -> int:
        run_dir = one_run(target)
        from prism_operator.report import write_report

        typer.echo(str(write_report(run_dir)))
        return 0

    _exit_with(write)


def _print_status(inspected: list[tuple[dict[str, Any], PrismRunStatus]], output: str) -> None:
    from rich.console import Console

    from prism_operator.status_table import run_details, runs_table

    now = datetime.now(UTC)
    documents = [{**document, "status": status.to_dict()} for document, status in inspected]
    shown: Any = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
    if output == "json":
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    elif output == "yaml":
        import yaml

        typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)
    elif output in ("", "wide"):
        wide = output == "wide"
        one = len(inspected) == 1
        Console().print(run_details(inspected[0], now, wide) if one else runs_table(inspected, now, wide))
    else:
        _fail(f"--output is '{output}'; expected wide, json or yaml", 2)


def _exit_with(action: Callable[[], int]) -> NoReturn:
    try:
        code = action()
    except PrismError as error:
        _fail(str(error), error.exit_code)
    raise typer.Exit(code)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"prism: {sentence}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
