"""What every rank runs: the warm-up's steps, each rank on its share of the pairs.

The loss is `engines.comparisons`', as in engine local, over the same pairs in the same order. The router's load is balanced within each
forward, so results are equal for any number of ranks whose forwards are equal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import open_taught
from prism_trainer.engines.comparisons import gap_metrics, pair_gaps
from prism_trainer.engines.deepspeed.sharded import ShardedDiscriminator, make_accelerator
from prism_trainer.engines.deepspeed.students import MADE, read_pairs
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_discriminator, load_processor, save_model
from prism_trainer.engines.local.pairs import Pair, Pairs, split_pairs, split_prompts
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.ranks.agreement import agree, is_first, wait_for_all
from prism_trainer.engines.ranks.folder import read_job
from prism_trainer.engines.ranks.messages import Teller
from prism_trainer.engines.ranks.shares import divide_batch
from prism_trainer.seeds import seed_for
from prism_trainer.stages.discriminator import count_steps

OUTPUT, STATE = "output", "state"


def main(folder: Path) -> None:
    job = read_job(folder)
    config = job.config
    assert isinstance(config, DiscriminatorConfig)
    accelerator = make_accelerator(config)
    began_with = Path(job.resume_from.uri) / "discriminator" if job.resume_from else folder / MADE
    processor = load_processor(began_with)
    scorer = _load_in_turn(accelerator, began_with, PromptEncoder(processor, job.system_prompt), config)
    taught = open_taught(job.data, known=True)
    if is_first():
        scorer.require_readable(taught)
    pairs = read_pairs(folder, taught)
    training, held_out = split_pairs(pairs, split_prompts(taught, config.held_out_fraction, job.seed))
    sharded = ShardedDiscriminator(accelerator, scorer, config, count_steps(config, len(training)))
    if job.resume_from:
        sharded.restore(Path(job.resume_from.uri) / STATE)
    _Warmup(folder, job, config, accelerator, sharded, processor).run(training, held_out, pairs.metrics)


class _Warmup:
    """One rank's course."""

    def __init__(
        self,
        folder: Path,
        job: StageJob,
        config: DiscriminatorConfig,
        accelerator: Accelerator,
        sharded: ShardedDiscriminator,
        processor: object,
    ) -> None:
        self._folder, self._job, self._config = folder, job, config
        self._accelerator, self._sharded, self._processor = accelerator, sharded, processor
        self._teller = Teller(folder)
        self._rank, self._world_size = accelerator.process_index, accelerator.num_processes

    def run(self, training: Pairs, held_out: Pairs, known: dict[str, float]) -> None:
        """`known` is told with the first measurement."""
        job, config = self._job, self._config
        pairs_per_step = config.batch_size // 2
        total_steps = count_steps(config, len(training))
        order = training.order(job.seed, job.stage, total_steps * pairs_per_step)
        first_step = self._sharded.num_steps
        measured = self._measure(held_out)
        self._tell("begin", first_step=first_step, total_steps=total_steps)
        self._tell("step", step=first_step, metrics={**measured, **known})
        for step in range(first_step, total_steps):
            torch.manual_seed(seed_for(job.seed, job.stage, "dropout", step, *([self._rank] if self._rank else [])))
            chunks = self._share(training, order[step * pairs_per_step : (step + 1) * pairs_per_step].tolist())
            metrics = self._sharded.step(chunks, pairs_per_step)
            done = step + 1
            if done % config.eval_every == 0 or done == total_steps:
                measured = self._measure(held_out)
                metrics |= measured
            self._tell("step", step=done, metrics=metrics)
            stop = agree(self._teller.stop_requested, self._accelerator.device) and done < total_steps
            if done == total_steps or stop or done % config.save_every == 0:
                self._save(done, measured, is_final=done == total_steps)
            if stop:
                return

    def _share(self, training: Pairs, numbers: Sequence[int]) -> list[list[Pair]]:
        """This rank's forwards: consecutive ones of the whole step's, so that they are those of one process where the sizes allow it."""
        shares = divide_batch(len(numbers), self._config.micro_batch_size // 2, self._world_size)
        start = self._rank * shares.micro * shares.accumulation
        own = numbers[start : start + shares.micro * shares.accumulation]
        return [[training[one] for one in own[first : first + shares.micro]] for first in range(0, len(own), shares.micro)]

    def _measure(self, held_out: Pairs) -> dict[str, float]:
        """Every rank a stretch of the held-out pairs, joined in their order."""
        bounds = [round(rank * len(held_out) / self._world_size) for rank in range(self._world_size + 1)]
        own = held_out[bounds[self._rank] : bounds[self._rank + 1]]
        gaps = gather_object([pair_gaps(self._sharded.scorer, own, self._config.micro_batch_size // 2)])
        return gap_metrics({name: torch.cat([part[name] for part in gaps]) for name in ("caption", "cot")})

    def _save(self, step: int, measured: dict[str, float], *, is_final: bool) -> None:
        folder = self._folder / OUTPUT / f"step-{step}"
        if is_first():
            save_model(self._sharded.scorer.model, self._processor, folder / "discriminator")
        if not is_final:
            self._sharded.save(folder / STATE)
        wait_for_all()
        self._tell("saved", step=step, folder=str(folder), is_final=is_final, metrics=measured if is_final else None)

    def _tell(self, what: str, **fields: object) -> None:
        if is_first():
            self._teller.tell(what, **fields)


def _load_in_turn(accelerator: Accelerator, folder: Path, encoder: PromptEncoder, config: DiscriminatorConfig) -> Scorer:
    """One rank of a machine after another: the weights pass through the host's memory in float32, which has room for one or two."""
    for turn in range(int(os.environ["LOCAL_WORLD_SIZE"])):
        if turn == accelerator.local_process_index:
            model, recompute = load_discriminator(folder, accelerator.device), config.gpu.gradient_checkpointing
            scorer = Scorer(model, encoder, config.max_length, accelerator.device, recompute=recompute)
        wait_for_all()
    return scorer
