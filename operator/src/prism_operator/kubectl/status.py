"""`kubectl prism status`: runs as the API server has them, with a sentence where the operator has not said one."""

from __future__ import annotations

from datetime import UTC, datetime

from prism_operator.errors import NoSuchRunError
from prism_operator.kubectl.door import Door
from prism_operator.kubectl.runs import Run, list_runs, read_run, unseen
from prism_operator.status_command import Shown, View, print_runs, watch_runs


def show_status(door: Door, name: str | None, everywhere: bool, output: str, watch: bool) -> int:
    """One run by name, or all of a namespace, or all."""
    view = View(output, namespaces=everywhere, one=name is not None)

    def read() -> list[Shown]:
        runs = [read_run(door, name)] if name is not None else list_runs(door, everywhere)
        if not runs:
            place = "any namespace" if everywhere else f"namespace '{door.namespace}'"
            raise NoSuchRunError(f"there is no PrismRun in {place}; make one with: kubectl prism new run.yaml && kubectl apply -f run.yaml")
        return [shown(run, datetime.now(UTC)) for run in runs]

    if watch:
        return watch_runs(read, view)
    print_runs(read(), view)
    return 0


def shown(run: Run, now: datetime) -> Shown:
    """The object untouched; in the status for people, what the object alone tells."""
    status = run.status
    notes = [note for note in (status.message, _way_on(run), unseen(run, now), _leaving(run)) if note]
    return run.raw, status.model_copy(update={"message": " ".join(notes)})


def _way_on(run: Run) -> str:
    """A finished run is not run again; its successor takes over what it has."""
    failed = run.is_finished and run.status.summary == "Failed"
    return f"To try again from what is verified: kubectl prism retry {run.name} -n {run.namespace}" if failed else ""


def _leaving(run: Run) -> str:
    return "It is being deleted." if "deletionTimestamp" in run.raw["metadata"] else ""
