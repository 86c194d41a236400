"""Stage rlvr on verl: the same steps as `stages/rlvr.py`, with the responses drawn by vLLM and the policy sharded over GPUs."""

from __future__ import annotations

from typing import Any

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_verifiable
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.verl.driver import run_stage
from prism_trainer.engines.verl.overrides import rlvr_overrides
from prism_trainer.reporting import Reporter


def run(job: StageJob, config: RlvrConfig, reporter: Reporter) -> CheckpointRef:
    rows = open_verifiable(job.data, known=job.resume_from is not None)

    def make_trainer(verl_config: Any, session: Session) -> Any:
        from prism_trainer.engines.verl.trainer import PrismTrainer  # verl is imported only when Ray's environment stands

        return PrismTrainer(verl_config, job, session, rows)

    return run_stage(job, config, reporter, lambda site: rlvr_overrides(job, config, site), make_trainer)
