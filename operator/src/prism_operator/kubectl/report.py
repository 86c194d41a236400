"""`kubectl prism report`: report.html from a mounted or copied storage folder, or a summary of what the object alone tells.

On a cluster the run folder has no status.json and no job.json: the object is the status, and the planner makes the jobs again from it.
Nothing is asked of the cluster but the object; needs the extra `report`, as the report of a local run does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from prism_operator.api import AttemptStatus, PrismRun, PrismRunStatus, StageStatus
from prism_operator.decide import job_of
from prism_operator.errors import BadRunError, NoSuchRunError, PrismError
from prism_operator.kubectl.door import Door
from prism_operator.kubectl.runs import Run, read_run
from prism_operator.local.results import publish_results
from prism_operator.names import BASE_MODEL, checkpoints_uri, stages_dir
from prism_operator.parse import parse_run
from prism_operator.plan import RunPlan, Site, StagePlan, make_plan
from prism_operator.report.folder import read_run as read_folder
from prism_operator.report.page import PLOTS, write_page
from prism_operator.report.record import Attempt, RunRecord, StageRecord
from prism_operator.timestamps import parse_time
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import Progress, StageResult

NO_STORAGE = (
    "This page is made of the PrismRun alone, which has no curves, responses or checkpoints: "
    "give kubectl prism report --from the run's folder of the storage."
)


def report(door: Door, name: str, folder: Path | None) -> int:
    """Prints the page's path."""
    run = read_run(door, name)
    page = _report_folder(run, folder) if folder else _report_object(run, Path(f"{run.name}-report"))
    typer.echo(str(page))
    return 0


def _report_folder(run: Run, folder: Path) -> Path:
    """The same page that `prism report` makes of a run on one machine, in the same place."""
    folder = folder.expanduser().resolve()
    if not any(Path(place(str(folder))).is_dir() for place in (stages_dir, checkpoints_uri)):
        raise NoSuchRunError(
            f"{folder} has neither stages/ nor checkpoints/; --from is the run's own folder of the storage, which bears its name: "
            f"MOUNT/{run.name}"
        )
    try:
        publish_results(folder, rebased(run.status, str(folder)))
        record = join(read_folder(folder), run, Site(root_uri=str(folder), base_dir=str(folder.parent)))
        return write_page(record, folder)
    except OSError as error:
        raise PrismError(
            f"the report cannot be written to {folder}: {error.strerror or error}; copy the folder, and give the copy"
        ) from None


def _report_object(run: Run, folder: Path) -> Path:
    """A summary: stages, attempts, conditions, configuration."""
    empty = RunRecord(name=run.name, run=None, stages=(), rows=(), samples=(), checkpoints=(), notes=(NO_STORAGE,))
    try:
        page = write_page(join(empty, run, Site(root_uri=run.name, base_dir=None)), folder)
        plots = folder / PLOTS
        if not any(plots.iterdir()):
            plots.rmdir()
    except OSError as error:
        raise PrismError(f"the report cannot be written to {folder}: {error.strerror or error}") from None
    return page


def rebased(status: PrismRunStatus, root: str) -> PrismRunStatus:
    """Checkpoints where the folder lies here: the part of their address from `checkpoints/` on stays."""
    return status.model_copy(update={"stages": tuple(_rebased_stage(stage, root) for stage in status.stages)})


def _rebased_stage(stage: StageStatus, root: str) -> StageStatus:
    if stage.checkpoint is None or not stage.checkpoint.attempt:
        return stage
    inner = stage.checkpoint.uri.rpartition(checkpoints_uri("/"))[2]
    moved = stage.checkpoint.model_copy(update={"uri": f"{checkpoints_uri(root)}{inner}"})
    return stage.model_copy(update={"checkpoint": moved})


def join(record: RunRecord, run: Run, site: Site) -> RunRecord:
    """What the folder tells, with what the object tells: status, order of the stages, jobs, and attempts that left no file."""
    parsed = parse_run(run.raw).run
    if parsed is None:
        return record
    known = parsed.model_copy(update={"status": run.status})
    plan = _plan(parsed, site)
    every = (_stage(stage, record.stage(stage.name), plan, run.status) for stage in run.status.stages)
    stages = tuple(stage for stage in every if stage.attempts)
    notes = tuple(note for note in record.notes if not note.startswith("status.json "))
    return replace(record, name=run.name, run=known, stages=stages or record.stages, notes=notes)


def _plan(run: PrismRun, site: Site) -> RunPlan | None:
    try:
        return make_plan(run, site)
    except BadRunError:
        return None


def _stage(status: StageStatus, found: StageRecord | None, plan: RunPlan | None, whole: PrismRunStatus) -> StageRecord:
    files = {attempt.number: attempt for attempt in (found.attempts if found else ())}
    told = {attempt.number: attempt for attempt in status.attempts}
    planned = plan.stage(status.name) if plan else None
    attempts = []
    for number in sorted(files | told):
        attempt = files.get(number) or Attempt(number)
        job = attempt.job or (make_job(plan, planned, number, whole) if plan and planned else None)
        attempts.append(_completed(replace(attempt, job=job), told.get(number), status))
    return StageRecord(status.name, tuple(attempts))


def _completed(found: Attempt, told: AttemptStatus | None, status: StageStatus) -> Attempt:
    """With result and progress as the object has them, where the files do not tell."""
    if told is None or found.result is not None:
        return found
    number, last = found.number, told.number == status.attempts[-1].number
    progress = Progress(stage=status.name, attempt=number, step=status.step, total_steps=status.total_steps, advanced_at="", updated_at="")
    known = replace(found, progress=found.progress or (progress if last else None))
    if told.outcome not in ("Succeeded", "Failed", "Stopped"):
        return known
    started, finished = parse_time(told.started_at), parse_time(told.finished_at)
    result = {
        "stage": status.name,
        "attempt": number,
        "outcome": told.outcome,
        "failureClass": told.failure_class,
        "message": told.message,
        "seconds": max(0.0, (finished - started).total_seconds()) if started and finished else 0.0,
    }
    return replace(known, result=StageResult.model_validate(result))


def make_job(plan: RunPlan, stage: StagePlan, attempt: int, status: PrismRunStatus) -> StageJob:
    """As the operator made it, but for where it went on from."""
    outputs = {known.name: known.checkpoint for known in status.stages if known.checkpoint}
    inputs = {}
    for wire in stage.wires:
        made = outputs.get(wire.stage)
        address = CheckpointRef(
            stage=wire.stage,
            uri=made.uri if made else checkpoints_uri(plan.root_uri),
            digest=made.digest if made else None,
            step=made.step if made else 0,
            revision=None,
        )
        inputs[wire.role] = plan.model if wire.stage == BASE_MODEL else address
    return job_of(plan, stage, attempt, inputs, None)
