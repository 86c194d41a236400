"""Stage sft of engine verl: LLaMA-Factory's full fine-tuning on all GPUs the stage was given, with ZeRO sharding.

Reads a policy, writes a policy, as `stages.sft` does, from the same rows in the same order and with the same loss. The driver prepares the
data, starts the ranks, and is the only one who commits: they train on while it hashes what they saved.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from prism_trainer.checkpoints import Writer
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_demonstrations
from prism_trainer.engines.devices import require_heard
from prism_trainer.engines.llamafactory.dataset import write_dataset
from prism_trainer.engines.llamafactory.exports import lay_out_resume, policy_writer, state_writer
from prism_trainer.engines.llamafactory.scratch import Scratch
from prism_trainer.engines.llamafactory.settings import Place, training_arguments, zero_settings
from prism_trainer.engines.local.models import require_policy
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.ranks.course import Course
from prism_trainer.engines.ranks.folder import scratch_folder
from prism_trainer.engines.ranks.launch import Machines, find_machines, run_ranks
from prism_trainer.engines.ranks.shares import divide_batch
from prism_trainer.errors import Stopped
from prism_trainer.reporting import Reporter
from prism_trainer.stages.sft import count_steps

ROOM = "prism_trainer.engines.llamafactory"
QUIET = {"LLAMAFACTORY_VERBOSITY": "WARN"}
"""Otherwise every rank writes whole configurations into the log."""


def run(job: StageJob, config: SftConfig, reporter: Reporter) -> CheckpointRef:
    require_heard(config)
    return train(job, config, reporter, find_machines().told(QUIET))


def train(job: StageJob, config: SftConfig, reporter: Reporter, machines: Machines) -> CheckpointRef:
    """The stage on `machines`."""
    divide_batch(config.batch_size, config.micro_batch_size, machines.world_size)
    session = Session(job, reporter)
    policy_dir = session.input_dir("policy").absolute()
    architecture = require_policy(policy_dir)

    def payload(saved: Path, is_final: bool) -> dict[str, Writer]:
        state = {} if is_final else {"state": state_writer(saved, machines.world_size)}
        return {"policy": policy_writer(saved, policy_dir), **state}

    with scratch_folder(job) as folder:
        _prepare(Scratch(folder), job, config, reporter, machines, policy_dir)
        _tokenise(Scratch(folder), reporter, machines)
        reporter.phase("loading")
        course = Course(session, folder, payload, {"policy": architecture})
        run_ranks(f"{ROOM}.training", folder, machines, course.watch)
        return course.outcome()


def _prepare(scratch: Scratch, job: StageJob, config: SftConfig, reporter: Reporter, machines: Machines, policy_dir: Path) -> None:
    """All that the ranks read."""

    def sign() -> None:
        reporter.phase("preparing")
        if reporter.stop_requested:
            raise Stopped(None)

    rows = open_demonstrations(job.data, known=job.resume_from is not None)
    total_steps = count_steps(config, len(rows))
    write_dataset(scratch.data, rows, rows.order(job.seed, job.stage, total_steps * config.batch_size), job.system_prompt, sign)
    if job.resume_from is not None:
        lay_out_resume(Path(job.resume_from.uri), scratch.resume, machines.world_size)
    place = Place(
        policy=policy_dir,
        data=scratch.data,
        tokens=scratch.tokens,
        output=scratch.output,
        resume=scratch.resume if job.resume_from is not None else None,
        zero_file=scratch.zero_file if machines.have_gpus or machines.world_size > 1 else None,
        world_size=machines.world_size,
        have_gpus=machines.have_gpus,
        flash_attention=machines.have_gpus and importlib.util.find_spec("flash_attn") is not None,
    )
    scratch.write_arguments(training_arguments(config, place, job.seed, total_steps))
    scratch.write_zero(zero_settings(config.gpu, have_gpus=machines.have_gpus))


def _tokenise(scratch: Scratch, reporter: Reporter, machines: Machines) -> None:
    """By one process without a GPU, on the machine that will have rank 0. A growing cache is the sign of work."""
    cached_bytes = -1

    def watch() -> None:
        nonlocal cached_bytes
        if reporter.stop_requested:
            raise Stopped(None)
        size = scratch.cached_bytes()
        if size != cached_bytes:
            cached_bytes = size
            reporter.phase("tokenising")

    environment = {"HF_DATASETS_CACHE": str(scratch.cache), "CUDA_VISIBLE_DEVICES": ""}
    run_ranks(f"{ROOM}.tokens", scratch.folder, machines.one_process(environment), watch)
