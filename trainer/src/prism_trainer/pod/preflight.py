"""The look at the machines, once an attempt and before its trainer: asked of a process of its own, which may import torch and ray."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.environments import environment_of
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.pod import PodJob
from prism_trainer.contract.preflight import PREFLIGHT, Finding, PreflightRequest
from prism_trainer.contract.report import FailureClass
from prism_trainer.errors import PreflightError
from prism_trainer.pod.board import Board
from prism_trainer.pod.children import Answer, ask
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop

SECONDS = 1500.0
"""For all of it; each of its parts has a deadline of its own, and this is for what hangs all the same."""

log = logging.getLogger(__name__)


def check_machines(job: StageJob, local: StageJob, pod: PodJob, places: Places, stop: Stop, board: Board) -> None:
    """PreflightError with one sentence, if the machines cannot carry the stage out. `local` has the paths that the trainer writes to."""
    if places.preflight is None:
        log.info("the preflight is switched off")
        return
    board.phase("checking the machines")
    request = PreflightRequest(
        ray_address=places.ray_address,
        environment=environment_of(job.engine, job.config.kind),
        num_nodes=pod.num_nodes,
        gpus_per_node=job.gpus_per_node,
        storage_dir=local.output_uri,
        report_file=str(Path(local.report_dir) / PREFLIGHT),
        weights_bytes=_weights_bytes(job.inputs.values()),
        on_cpu=places.on_cpu,
    )
    file = places.job_file(f"{job.stage}-preflight")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(request.model_dump_json())
    answer = ask((*places.preflight, str(file)), SECONDS, stop)
    for line in answer.lines:
        log.info("preflight: %s", line)
    if answer.exit_code != 0:
        raise _refusal(answer)


def _refusal(answer: Answer) -> PreflightError:
    try:
        found = Finding.model_validate_json(answer.line)
    except ValidationError:
        how = f"was not done after {SECONDS:g} s" if answer.exit_code is None else f"ended with exit code {answer.exit_code}"
        last = answer.complaint or answer.line
        sentence = f"the preflight {how}{f'; its last words: {last[:300]}' if last else ''}"
        return PreflightError(FailureClass.NODE_LOST, f"{sentence}. PRISM_PREFLIGHT=off in spec.env leaves it out")
    return PreflightError(found.failure_class, found.sentence)


def _weights_bytes(inputs: Iterable[CheckpointRef]) -> int:
    return sum(file.stat().st_size for ref in inputs for file in Path(ref.uri).rglob("*.safetensors"))
