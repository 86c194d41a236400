"""`python -m prism_trainer job.json`: read the job, run one stage, leave a result.

The job is parsed before torch is imported, so that a wrong file fails at once. Exit codes: 0 succeeded, 2 unreadable job, else
`contract.report.EXIT_CODES`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from prism_trainer.carriers import carrier_of
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import EXIT_CODES, FailureClass, StageResult
from prism_trainer.errors import PrismError, Stopped, StorageError
from prism_trainer.failures import FOR_MEMORY, class_of, lost_in_words
from prism_trainer.job_file import read_job
from prism_trainer.library_settings import quiet_libraries
from prism_trainer.remote_data import bring_data
from prism_trainer.reporting import Reporter


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m prism_trainer JOB.json", file=sys.stderr)
        return 2
    try:
        job = read_job(Path(arguments[0]), StageJob)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        reporter = Reporter(Path(job.report_dir), job.stage, job.attempt)
    except StorageError as error:
        print(error, file=sys.stderr)
        return EXIT_CODES[error.failure_class]
    with reporter:
        result = _run(job, reporter)
        _leave(result, reporter)
    if result.outcome == "Succeeded":
        return 0
    print(f"{result.outcome}: {result.message}", file=sys.stderr)
    return EXIT_CODES[result.failure_class or FailureClass.PREEMPTED]


def _leave(result: StageResult, reporter: Reporter) -> None:
    """Where it cannot be written, the exit code still tells the class."""
    try:
        reporter.result(result)
    except StorageError as error:
        print(error, file=sys.stderr)


def _run(job: StageJob, reporter: Reporter) -> StageResult:
    try:
        job = _with_local_data(job, reporter)
        _prepare_libraries(job)
        stage = importlib.import_module(carrier_of(job.engine, job.config.kind))
        checkpoint = stage.run(job, job.config, reporter)
    except Stopped as stopped:
        return _result(job, reporter, "Stopped", message=str(stopped), checkpoint=stopped.checkpoint)
    except PrismError as error:
        return _result(job, reporter, "Failed", failure_class=error.failure_class, message=str(error))
    except Exception as error:
        traceback.print_exc()
        failure_class = class_of(error)
        if failure_class is FailureClass.OUT_OF_MEMORY:
            return _failed_for_memory(job, reporter)
        if failure_class is not None:
            return _result(job, reporter, "Failed", failure_class=failure_class, message=lost_in_words(error))
        message = f"{type(error).__name__}: {error} (a bug or an unforeseen input; the traceback is in the attempt's log)"
        return _result(job, reporter, "Failed", failure_class=FailureClass.USER_ERROR, message=message[:1500])
    return _result(job, reporter, "Succeeded", checkpoint=checkpoint, metrics=reporter.latest)


def _with_local_data(job: StageJob, reporter: Reporter) -> StageJob:
    """Before the libraries are told that there is no network."""
    return job.model_copy(update={"data": bring_data(job.data, reporter.fetching)})


def _failed_for_memory(job: StageJob, reporter: Reporter) -> StageResult:
    message = f"out of memory; {FOR_MEMORY[job.engine][job.config.kind]}"
    return _result(job, reporter, "Failed", failure_class=FailureClass.OUT_OF_MEMORY, message=message)


def _result(job: StageJob, reporter: Reporter, outcome: str, **fields: object) -> StageResult:
    return StageResult(stage=job.stage, attempt=job.attempt, outcome=outcome, seconds=round(reporter.seconds, 3), **fields)


def _prepare_libraries(job: StageJob) -> None:
    quiet_libraries()
    if job.engine == "verl":
        _show_own_gpus(job)
        return
    from prism_trainer.engines.local.models import quiet_transformers, use_threads

    use_threads(job.threads)
    quiet_transformers()


def _show_own_gpus(job: StageJob) -> None:
    """On one machine without a Ray of its own, the first so many; a Ray cluster gives its workers theirs."""
    if job.gpus_per_node and "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(job.gpus_per_node))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
