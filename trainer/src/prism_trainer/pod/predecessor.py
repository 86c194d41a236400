"""Several stages in the same pods (clusterPolicy Reuse): each container waits for the stage before it, and takes its checkpoint from it."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.report import StageResult
from prism_trainer.errors import Stopped
from prism_trainer.pod.board import Board
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop

log = logging.getLogger(__name__)


class NothingToGoOnFrom(Stopped):
    """The stage before did not succeed; this one was never begun and can be, later."""

    def __init__(self, sentence: str) -> None:
        super().__init__(None)
        self.args = (sentence,)


def wait_for_predecessor(stage: str, places: Places, stop: Stop, board: Board) -> None:
    """Until the container of `stage` has succeeded."""
    board.phase(f"waiting for stage '{stage}'")
    result = read_result(stage, places)
    while result is None:
        stop.pause(places.tick_seconds)
        board.advance()
        result = read_result(stage, places)
    if result.outcome != "Succeeded" or result.checkpoint is None:
        why = result.message.rstrip(".") or result.outcome
        raise NothingToGoOnFrom(f"stage '{stage}', before this one in the same pods, ended without a checkpoint: {why}; nothing was begun")
    log.info("stage '%s' is done: %s", stage, result.checkpoint.uri)


def with_earlier_outputs(job: StageJob, places: Places) -> StageJob:
    """Inputs that have no digest yet and were made by an earlier stage in these pods, as they were made."""
    return job.model_copy(update={"inputs": {role: _settled(ref, places) for role, ref in job.inputs.items()}})


def read_result(stage: str, places: Places) -> StageResult | None:
    """None while its container is not done."""
    try:
        return StageResult.model_validate_json(places.result_file(stage).read_bytes())
    except (OSError, ValidationError):
        return None


def _settled(ref: CheckpointRef, places: Places) -> CheckpointRef:
    if ref.digest is not None:
        return ref
    result = read_result(ref.stage, places)
    return result.checkpoint if result and result.checkpoint and result.outcome == "Succeeded" else ref
