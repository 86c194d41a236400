"""How the container ended, for the operator (termination message), for the pod's other containers, and as an exit code."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from prism_trainer.contract.report import EXIT_CODES, FailureClass, StageResult
from prism_trainer.pod.places import MODULE, Places

UNREADABLE = 2
"""Exit code for a job file that cannot be used."""

LINE = "%(asctime)s %(levelname)s %(message)s"

log = logging.getLogger(__name__)


def exit_code(result: StageResult) -> int:
    """0 only for success."""
    if result.outcome == "Succeeded":
        return 0
    return EXIT_CODES.get(result.failure_class or FailureClass.PREEMPTED, 1)


def leave(result: StageResult, places: Places) -> None:
    """Each place on its own: where one cannot be written, the others and the exit code still tell."""
    log.info("%s: %s", result.outcome, result.message or "done")
    _try_to_write(places.termination_log, result.to_message(), whole=False)
    _try_to_write(places.result_file(result.stage), result.to_message(), whole=True)


@contextlib.contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """The supervisor's lines stand in the attempt's log as well, between the trainer's."""
    handler: logging.Handler = logging.NullHandler()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter(LINE))
    logging.getLogger(MODULE).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(MODULE).removeHandler(handler)
        handler.close()


def unreadable(job_file: Path, sentence: str) -> StageResult:
    """For a job file that cannot be used; who it was for is guessed as well as can be."""
    attempt = 1
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        attempt = max(1, int(json.loads(job_file.read_bytes())["job"]["attempt"]))
    return StageResult(
        stage=job_file.stem, attempt=attempt, outcome="Failed", failure_class=FailureClass.CONTROL_PLANE, message=sentence[:1500]
    )


def _try_to_write(file: Path, text: str, *, whole: bool) -> None:
    """The termination log is a mount, so it is written in place; other containers poll the result, so that appears whole."""
    target = file.with_suffix(".partial") if whole else file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if whole:
            target.replace(file)
    except OSError as error:
        log.warning("the result cannot be written to '%s' (%s)", file, error)
