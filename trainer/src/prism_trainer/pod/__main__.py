"""`python -m prism_trainer.pod /prism/jobs/<stage>.json`: read the job, carry it out, leave the last words.

Exit codes: 0 succeeded, 2 a job file that cannot be used, else `contract.report.EXIT_CODES`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from prism_trainer.contract.environments import ON_CPU
from prism_trainer.contract.pod import RAY_ADDRESS, PodJob
from prism_trainer.contract.preflight import SWITCH
from prism_trainer.job_file import read_job
from prism_trainer.pod.last_words import LINE, UNREADABLE, exit_code, leave, unreadable
from prism_trainer.pod.places import MODULE, Places
from prism_trainer.pod.stop import Stop
from prism_trainer.pod.supervisor import Supervisor

USAGE = """usage: python -m prism_trainer.pod JOB.json

What a stage's container runs. JOB.json holds a PodJob (prism_trainer.contract.pod): the stage's job, and how to wait, restart and stop.
Progress is served on port 8270 (/progress, /metrics, /healthz); how it ended stands in /dev/termination-log.

environment:
  RAY_ADDRESS                  of the pod's Ray head (127.0.0.1:6379)
  PRISM_PREFLIGHT              off: engine verl begins without a look at the machines
  AWS_SHARED_CREDENTIALS_FILE  credentials of the object storage; AWS_REGION where it has one
  HF_TOKEN                     for models that are fetched from Hugging Face
"""


def main(arguments: list[str], places: Places | None = None) -> int:
    if arguments in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if len(arguments) != 1:
        print(USAGE, end="", file=sys.stderr)
        return UNREADABLE
    stop = Stop()
    stop.listen()
    logging.basicConfig(format=LINE, level=logging.WARNING, stream=sys.stdout)
    logging.getLogger(MODULE).setLevel(logging.INFO)
    return carry_out(Path(arguments[0]), places or _places(), stop)


def _places() -> Places:
    """The only look at the environment."""
    places = Places(ray_address=os.environ.get("RAY_ADDRESS", RAY_ADDRESS), on_cpu=os.environ.get(ON_CPU) == "1")
    return replace(places, preflight=None) if os.environ.get(SWITCH) == "off" else places


def carry_out(job_file: Path, places: Places, stop: Stop) -> int:
    """The last words are left on every way out."""
    try:
        pod = read_job(job_file, PodJob)
    except ValueError as error:
        leave(unreadable(job_file, str(error)), places)
        return UNREADABLE
    supervisor = Supervisor(pod, places, stop)
    try:
        result = supervisor.run()
    except BaseException as error:
        traceback.print_exc()
        sentence = f"{type(error).__name__}: {error} (a bug or an unforeseen situation; the traceback is in the container's log)"
        result = supervisor.failed(sentence[:1500])
    leave(result, places)
    return exit_code(result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
