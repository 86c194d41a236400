"""Stage discriminator of engine verl: the pairwise warm-up on all GPUs the stage was given, on accelerate and DeepSpeed ZeRO-2.

Reads a policy, writes a discriminator, as `stages.discriminator` does, with the same pairs, loss and measurements. The students' responses
go along in `state/`: drawing them is most of the work, and a GPU does not draw the same ones twice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prism_trainer.checkpoints import Writer
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.engines.deepspeed.students import MADE, POLICY, STUDENTS, join_students
from prism_trainer.engines.devices import require_heard
from prism_trainer.engines.local.models import architecture_of, require_policy
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.ranks.course import Course
from prism_trainer.engines.ranks.folder import scratch_folder
from prism_trainer.engines.ranks.launch import Machines, find_machines, run_ranks
from prism_trainer.engines.ranks.shares import divide_batch, require_same_ranks, write_ranks
from prism_trainer.errors import Stopped
from prism_trainer.reporting import Reporter

ROOM = "prism_trainer.engines.deepspeed"


def run(job: StageJob, config: DiscriminatorConfig, reporter: Reporter) -> CheckpointRef:
    require_heard(config)
    return warm_up(job, config, reporter, find_machines())


def warm_up(job: StageJob, config: DiscriminatorConfig, reporter: Reporter, machines: Machines) -> CheckpointRef:
    """The stage on `machines`."""
    divide_batch(config.batch_size // 2, config.micro_batch_size // 2, machines.world_size)
    session = Session(job, reporter)
    open_taught(job.data, known=job.resume_from is not None)
    policy_dir = session.input_dir("policy").absolute()
    require_policy(policy_dir)
    with scratch_folder(job) as folder:
        (folder / POLICY).write_text(str(policy_dir))
        if job.resume_from is not None:
            state = Path(job.resume_from.uri) / "state"
            require_same_ranks(state, machines.world_size)
            shutil.copyfile(state / STUDENTS, folder / STUDENTS)
            began_with = session.start_dir("discriminator")
        else:
            _sample(folder, config, reporter, machines)
            began_with = folder / MADE

        def payload(saved: Path, is_final: bool) -> dict[str, Writer]:
            state = {} if is_final else {"state": lambda target: _write_state(saved, folder, target, machines.world_size)}
            return {"discriminator": lambda target: _move_all(saved / "discriminator", target), **state}

        reporter.phase("loading")
        course = Course(session, folder, payload, {"discriminator": architecture_of(began_with)})
        run_ranks(f"{ROOM}.training", folder, machines, course.watch)
        return course.outcome()


def _sample(folder: Path, config: DiscriminatorConfig, reporter: Reporter, machines: Machines) -> None:
    """The messages are signs of work; what is not done when asked to stop is not kept."""
    told = folder / "told.jsonl"
    seen = -1

    def watch() -> None:
        nonlocal seen
        if reporter.stop_requested:
            raise Stopped(None)
        size = told.stat().st_size if told.is_file() else 0
        if size != seen:
            seen = size
            reporter.phase("sampling")

    run_ranks(f"{ROOM}.students", folder, machines, watch)
    join_students(folder, machines.world_size, config)
    told.unlink(missing_ok=True)


def _write_state(saved: Path, scratch: Path, target: Path, world_size: int) -> None:
    _move_all(saved / "state", target)
    shutil.copyfile(scratch / STUDENTS, target / STUDENTS)
    write_ranks(target, world_size)


def _move_all(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        shutil.move(entry, target / entry.name)
