"""`python streamed_alignment.py JOB [STOP_IN]`: what `python -m prism_trainer JOB` does, with a record of what happens in which order.

In each step the last prompt is answered only when the discriminator has read another one. The record lies beside JOB. In step STOP_IN,
counted from 0, the process is asked to stop at that very moment: one group read, one not yet answered.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import ray

from prism_trainer.__main__ import main
from prism_trainer.engines.verl.after_import import after_import

RECORD = "events.txt"


def events_of(record: Path, step: int) -> list[str]:
    lines = record.read_text().splitlines() if record.exists() else []
    return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == str(step)]


def note(record: Path, step: int, event: str) -> None:
    with record.open("a") as file:
        file.write(f"{step} {event}\n")


def hold_the_last_answer(rollout_worker: Any) -> None:
    from waiting_rollouts import Waiting

    rollout_worker.RolloutWorker = Waiting


def record_what_is_passed_on(record: Path, stop_in: int, trainer: Any) -> None:
    class Recorded(trainer.AlignmentTrainer):
        def _score_one(self, place: int, answered: Any) -> Any:
            step = self.global_steps - 1
            note(record, step, f"{place} answered")
            calls = super()._score_one(place, answered)
            threading.Thread(target=note_the_end, args=(step, place, calls), daemon=True).start()
            return calls

        def _answer(self, tasks: Any) -> Any:
            answered = super()._answer(tasks)
            note(record, self.global_steps - 1, "all answered")
            return answered

    def note_the_end(step: int, place: int, calls: Any) -> None:
        ray.wait(calls, num_returns=len(calls))
        if step == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        note(record, step, f"{place} read")

    trainer.AlignmentTrainer = Recorded


if __name__ == "__main__":
    job, *stop_in = sys.argv[1:]
    file, stop = Path(job).with_name(RECORD), int(stop_in[0]) if stop_in else -1
    after_import("prism_trainer.engines.verl.rollout_worker", hold_the_last_answer)
    after_import("prism_trainer.engines.verl.alignment_trainer", lambda module: record_what_is_passed_on(file, stop, module))
    sys.exit(main([job]))
