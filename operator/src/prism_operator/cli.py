"""`prism` and `kubectl prism`: the command line. Each command reads its arguments, calls one function and prints; heavy modules are
imported when needed.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from prism_operator.errors import NoSuchRunError, PrismError
from prism_operator.kubectl.place import PLUGIN, Context, Kubeconfig, Namespace, Place, RunName

if TYPE_CHECKING:
    from prism_operator.kubectl.door import Door

INTERRUPTED = 130

app = typer.Typer(
    name="prism",
    help="""PRISM: post-train a vision-language model, stage by stage, from one PrismRun.

`prism` speaks of runs on this machine, by folder or file. `kubectl prism`, the same program, speaks of runs on a cluster, by name; so
does `prism` where --namespace, --context or --kubeconfig is given.""",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

File = Annotated[Path, typer.Argument(help="The PrismRun, a YAML file.", metavar="FILE")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Run folder, in place of spec.storage.local.path.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return only when it is so.")]
TARGET = "[NAME | DIR | FILE]"

data = typer.Typer(help="Check, filter and make data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")
HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Whoever reads the arguments explains them too."""


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

    Stages of engine verl run in the Python that has their library, where this one has not: PRISM_PYTHON_SFT names it for sft
    (LLaMA-Factory), PRISM_PYTHON_RL for discriminator, alignment and rlvr (verl), PRISM_PYTHON_EVAL for evaluation (lmms-eval). They
    start a Ray of their own, or join the one that RAY_ADDRESS names.
    """
    from prism_operator.run_command import run_file

    _exit_with(lambda: run_file(file, redo=redo, run_dir=run_dir, plain=plain))


@app.command()
def validate(
    called: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="PrismRuns, YAML files.", metavar="FILE...")],
    executor: Annotated[
        str | None,
        typer.Option(
            "--for", help="Also whether it can be carried out. local: by prism run, here. cluster: by the operator. any: leave that out."
        ),
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="Also what the API server says to it, as a dry run; for a cluster.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Report every problem of files at once.

    Each with its line and path. Exit code 1 if there is any.
    """
    from prism_operator.validate_command import validate_files

    place = Place(namespace, context, kubeconfig)
    by_default = "cluster" if server or _on_cluster(called, place) else "local"
    _exit_with(lambda: validate_files(files, executor or by_default, place if server else None))


@app.command()
def status(
    called: typer.Context,
    target: Annotated[str | None, typer.Argument(help="By default all: of the namespace, or under ./runs.", metavar=TARGET)] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of the cluster.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until it is finished; exit code 1 if it failed.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="wide, json or yaml.")] = "",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show how runs are doing.

    Of one run: its columns, its stages with their attempts, what is not as it should be, and what goes on. On this
    machine it reads the run folder, so it also works while nothing runs.
    """
    place = Place(namespace, context, kubeconfig)
    if everywhere or _on_cluster(called, place):
        from prism_operator.kubectl.status import show_status

        _on(place, lambda door: show_status(door, target, everywhere, output, watch))
    from prism_operator.status_command import show_local

    _exit_with(lambda: show_local(_path(target or "runs"), output, watch))


@app.command()
def logs(
    called: typer.Context,
    target: Annotated[str, typer.Argument(help="The run.", metavar="NAME | DIR | FILE")],
    stage: Annotated[str | None, typer.Option("--stage", help="Stage; by default the one that ran last.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Attempt; by default the last.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows; on a cluster from attempt to attempt.")] = False,
    container: Annotated[
        str | None, typer.Option("--container", "-c", help="Of the head pod, such as ray-head; by default the stage's.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what a stage's process wrote.

    On a cluster, -f goes on over restarts, to the next attempt and to the next stage, until the run is finished; with --stage or
    --attempt, until that is.
    """
    place = Place(namespace, context, kubeconfig)
    if container is not None or _on_cluster(called, place):
        from prism_operator.kubectl.logs import Wanted, follow_logs, print_logs

        wanted = Wanted(stage, attempt, container)
        _on(place, lambda door: (follow_logs if follow else print_logs)(door, target, wanted))
    from prism_operator.local.inspection import find_log, one_run, read_log

    def show() -> int:
        for text in read_log(find_log(one_run(_path(target)), stage, attempt), follow):
            sys.stdout.write(text)
            sys.stdout.flush()
        return 0

    _exit_with(show)


@app.command()
def suspend(name: RunName, wait: Wait = False, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Pause a run on a cluster.

    The stage saves a checkpoint, its pods go, and nothing is started until `resume`.
    """
    from prism_operator.kubectl import wishes

    _on(Place(namespace, context, kubeconfig), lambda door: wishes.suspend(door, name, wait))


@app.command()
def resume(name: RunName, wait: Wait = False, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Go on with a suspended run on a cluster, from its last checkpoint."""
    from prism_operator.kubectl import wishes

    _on(Place(namespace, context, kubeconfig), lambda door: wishes.resume(door, name, wait))


@app.command()
def retry(
    name: RunName,
    new_name: Annotated[str | None, typer.Option("--name", help="Of the new run; by default NAME-2, or the next that is free.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the new run, and create nothing.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a new run from one that failed on a cluster.

    It takes over the checkpoint of every stage that was verified; the failed run stays as it is.
    """
    from prism_operator.kubectl.retry import retry as make_retry

    _on(Place(namespace, context, kubeconfig), lambda door: make_retry(door, name, new_name, dry_run))


@app.command()
def operator() -> None:
    """Run the operator of a cluster.

    With the pod's own account or $KUBECONFIG. Its settings are environment variables, PRISM_*.
    """
    gc.disable()  # nothing of what is imported is garbage: looking for it takes a tenth of the start
    from prism_operator.kube.process import run_operator

    gc.freeze()
    gc.enable()
    _exit_with(run_operator)


@app.command()
def new(
    called: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="File to write; by default it is printed.", metavar="[FILE]")] = None,
    size: Annotated[str, typer.Option("--size", help="tiny, 4b or 8b.")] = "tiny",
    algorithm: Annotated[str, typer.Option("--algorithm", help="grpo, dapo or gspo.")] = "grpo",
    name: Annotated[str, typer.Option("--name", help="metadata.name.")] = "my-run",
    executor: Annotated[str | None, typer.Option("--for", help="local or cluster; 4b and 8b are for a cluster.")] = None,
) -> None:
    """Write a commented PrismRun to start from."""
    from prism_operator.new import executor_of, write_prismrun

    if file is not None and file.exists():
        _fail(f"{file} exists; give another name or delete it", 1)

    def write() -> int:
        where = executor or executor_of(size, _on_cluster(called, Place()))
        text = write_prismrun(file, size, algorithm, name, where)
        check = "kubectl prism validate --server" if where == "cluster" else "prism validate"
        typer.echo(text if file is None else f"wrote {file}; next: {check} {file}")
        return 0

    _exit_with(write)


@app.command()
def report(
    called: typer.Context,
    target: Annotated[str, typer.Argument(help="The run.", metavar="NAME | DIR | FILE")],
    folder: Annotated[
        Path | None, typer.Option("--from", help="Of a run on a cluster: its folder of the storage, mounted here or copied.", metavar="DIR")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write report.html, with the plots of a run.

    Also of one that is under way. The storage of a cluster is not read from here: without --from, the page has what the
    PrismRun itself tells.
    """
    place = Place(namespace, context, kubeconfig)
    if folder is not None or _on_cluster(called, place):

        def write_remote(door: Door) -> int:
            from prism_operator.kubectl.report import report as report_cluster

            return report_cluster(door, target, folder)

        _on(place, write_remote)
    from prism_operator.local.inspection import one_run

    def write() -> int:
        run_dir = one_run(_path(target))
        from prism_operator.report import write_report

        typer.echo(str(write_report(run_dir)))
        return 0

    _exit_with(write)


@data.command(context_settings=HANDED_ON)
def check(called: typer.Context) -> None:
    """Tell what sets hold, and what is wrong in them.

    Every row that could not be used, by file, row and column; then the exit code is 1. `prism data check --help` has the options.
    """
    _hand_on(called)


@data.command(name="filter", context_settings=HANDED_ON)
def filter_(called: typer.Context) -> None:
    """Make the subset for rlvr, by a policy's pass rates.

    Kept are the prompts it answers neither always nor never. `prism data filter --help` has the options.
    """
    _hand_on(called)


@data.command(context_settings=HANDED_ON)
def pairs(called: typer.Context) -> None:
    """Make warm-up pairs from a student's responses.

    For the discriminator, each beside the teacher's. `prism data pairs --help` has the options.
    """
    _hand_on(called)


def _hand_on(called: typer.Context) -> NoReturn:
    from prism_operator.data_command import run_data

    _exit_with(lambda: run_data(called.info_name or "", called.args))


def _on_cluster(called: typer.Context, place: Place) -> bool:
    """Called by kubectl, or with one of kubectl's options."""
    return place.is_given or (called.find_root().info_name or "").startswith(PLUGIN)


def _path(target: str) -> Path:
    """Of a run on this machine. Whoever gives a name means a cluster."""
    path = Path(target)
    if not path.exists():
        raise NoSuchRunError(f"{path.absolute()} does not exist; for a run on a cluster, use kubectl prism, or give its --namespace")
    return path


def _on(place: Place, action: Callable[[Door], int]) -> NoReturn:
    """With the cluster, which is asked for nothing before the command does."""

    def opened() -> int:
        from prism_operator.kubectl.door import Door

        return action(Door.open(place))

    _exit_with(opened)


def _exit_with(action: Callable[[], int]) -> NoReturn:
    try:
        code = action()
    except PrismError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:  # an extra, such as the report's matplotlib, or the operator's kubernetes
        _fail(f"this needs the Python package '{error.name}', which is not installed", 1)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"prism: {sentence}", err=True)
    raise typer.Exit(code)


def kubectl_prism() -> None:
    """The same program under the name by which kubectl finds it."""
    app(prog_name=f"{PLUGIN} prism")


if __name__ == "__main__":
    app()
