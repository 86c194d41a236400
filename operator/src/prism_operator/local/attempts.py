"""Attempts in a run folder, read back from what they and the runner wrote."""

from __future__ import annotations

import json
from pathlib import Path

from prism_operator.children import AttemptRecord, StopRequest
from prism_operator.local.files import JOB, LOG, PROCESS, STOP, last_words, read_value
from prism_operator.local.processes import ProcessRecord, is_alive
from prism_operator.timestamps import parse_time
from prism_trainer.contract.report import PROGRESS, RESULT, Progress, StageResult


def read_attempt(stage: str, number: int, folder: Path) -> AttemptRecord:
    """Liveness first: what is read after a process ended is what it left behind."""
    process = read_value(folder / PROCESS, ProcessRecord)
    alive = process is not None and process.ended_at is None and is_alive(process, folder / JOB)
    config_digest, resume_from = _job_facts(folder / JOB)
    result = read_value(folder / RESULT, StageResult)
    return AttemptRecord(
        stage=stage,
        number=number,
        alive=alive,
        config_digest=config_digest,
        resume_from=resume_from,
        started_at=parse_time(process.started_at) if process else None,
        ended_at=parse_time(process.ended_at) if process else None,
        exit_code=process.exit_code if process else None,
        stop=read_value(folder / STOP, StopRequest),
        result=result if not alive else None,
        progress=read_value(folder / PROGRESS, Progress),
        log_tail=last_words(folder / LOG) if result is None and not alive else "",
        log_file=str(folder / LOG),
    )


def _job_facts(path: Path) -> tuple[str | None, str | None]:
    """Configuration digest and checkpoint to go on from, also of a job that an older version wrote."""
    try:
        job = json.loads(path.read_bytes())
        return job.get("configDigest"), (job.get("resumeFrom") or {}).get("uri")
    except (OSError, ValueError, AttributeError):
        return None, None
