"""Starting and ending a stage on verl, in the stage's own process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ray.exceptions

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import TrainingConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.verl.cluster import joined
from prism_trainer.engines.verl.overrides import Site
from prism_trainer.engines.verl.pin import require_pinned_verl
from prism_trainer.errors import GangError, Stopped
from prism_trainer.reporting import Reporter

MakeOverrides = Callable[[Site], dict[str, Any]]
MakeTrainer = Callable[[Any, Session], Any]


def run_stage(
    job: StageJob, config: TrainingConfig, reporter: Reporter, make_overrides: MakeOverrides, make_trainer: MakeTrainer
) -> CheckpointRef:
    """Ray, TransferQueue, workers, all steps, the final checkpoint; everything is closed whatever happens."""
    require_pinned_verl()
    session = Session(job, reporter)
    with joined(config.device) as (device, num_nodes, gpus_per_node), worker_failures_told():
        site = Site(device, num_nodes, gpus_per_node, str(session.start_dir("policy")))
        return _fit(site, session, make_overrides, make_trainer)


def _fit(site: Site, session: Session, make_overrides: MakeOverrides, make_trainer: MakeTrainer) -> CheckpointRef:
    # here, because verl looks at the environment that `joined` has set when it is imported
    import transfer_queue

    from prism_trainer.engines.verl.composition import compose_verl, validate
    from prism_trainer.engines.verl.rollout_worker import Rollouts

    verl_config = compose_verl(make_overrides(site))
    validate(verl_config)
    _leave_if_asked(session)
    transfer_queue.init(verl_config.transfer_queue)
    try:
        trainer = make_trainer(verl_config, session)
        trainer.init()
        _leave_if_asked(session)
        rollouts = Rollouts.create(verl_config, trainer.get_llm_client(), None, [])
        rollouts.judged()  # they are up: their start is no part of the first step
        metrics = trainer.fit(rollouts)
        ref: CheckpointRef = trainer.publication.finish(trainer.roles(), metrics)
        return ref
    finally:
        transfer_queue.close()


def _leave_if_asked(session: Session) -> None:
    """Starting takes minutes, and nothing is lost by leaving."""
    if session.reporter.stop_requested:
        raise Stopped(session.job.resume_from)


@contextlib.contextmanager
def worker_failures_told() -> Iterator[None]:
    """A worker's exception as its own, and a worker's death as a sentence."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = _origin(error)
        if isinstance(cause, DEATHS):
            raise GangError(f"a worker of the stage died: {_first_line(cause)}; its own log tells why (memory, or a lost node)") from error
        raise cause from error


DEATHS = (
    ray.exceptions.ActorDiedError,
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
)


def _origin(error: BaseException) -> BaseException:
    """What a worker raised, however many workers passed it on."""
    cause = getattr(error, "cause", None)
    return _origin(cause) if isinstance(cause, BaseException) else error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
