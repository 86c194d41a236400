"""Stage alignment on verl: the same steps as `stages/alignment.py`, with the responses drawn by vLLM, and policy and discriminator sharded
over GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from transformers import AutoConfig

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_processor, require_same_tokens
from prism_trainer.engines.local.scoring import Parsed, only_readable, require_readable
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.telling import require_gradable
from prism_trainer.engines.verl.driver import run_stage
from prism_trainer.engines.verl.overrides import alignment_overrides
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse


def run(job: StageJob, config: AlignmentConfig, reporter: Reporter) -> CheckpointRef:
    rows = open_taught(job.data, known=job.resume_from is not None)
    require_gradable(rows, config)

    def make_trainer(verl_config: Any, session: Session) -> Any:
        from prism_trainer.engines.verl.alignment_trainer import AlignmentTrainer  # verl is imported only when Ray's environment stands

        return AlignmentTrainer(verl_config, job, session, rows, require_judgeable(session, rows))

    return run_stage(job, config, reporter, lambda site: alignment_overrides(job, config, site), make_trainer)


def require_judgeable(session: Session, rows: Sequence[TaughtPrompt]) -> Callable[[Parsed], list[ParsedResponse | None]]:
    """The discriminator reads the policy's tokens, and each teacher's response to its end: found out before any worker starts.

    Returns what makes invalid the students' that it cannot read to their end.
    """
    policy_dir, discriminator_dir = session.start_dir("policy"), session.start_dir("discriminator")
    policy, discriminator = (AutoConfig.from_pretrained(folder, local_files_only=True) for folder in (policy_dir, discriminator_dir))
    require_same_tokens(policy, discriminator)
    encoder, longest = (
        PromptEncoder(load_processor(policy_dir), session.job.system_prompt),
        discriminator.text_config.max_position_embeddings,
    )
    require_readable(rows, encoder, longest)
    return partial(only_readable, encoder=encoder, max_tokens=longest)
