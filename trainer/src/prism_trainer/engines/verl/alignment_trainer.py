"""verl's V1 trainer with a step of alignment: the discriminator in the critic's place.

verl's order of a step is kept, and where it computes values the discriminator scores, which leaves the gradients of its own update too:

    gen -> values: scores and gradients of the discriminator -> adv -> update_critic: its optimizer step -> update_actor

A discriminator with GPUs of its own begins in `gen`: it reads a prompt's group as soon as that is answered; `values` waits for the last.

Overridden, all private in verl 0.9.1 and guarded by contract tests: resource pools, `_compute_values`, `_update_critic`, `_update_actor`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ray
import torch
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role as VerlRole

from prism_trainer.algorithms.reward_modes import stage_advantages
from prism_trainer.algorithms.saturation import count_saturated, pauses
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import Rows
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.engines.adversary import AdversaryResult, judge
from prism_trainer.engines.local.scoring import Parsed
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.reading import Group
from prism_trainer.engines.telling import response_metrics, sample_records
from prism_trainer.engines.verl.discriminator_worker import DiscriminatorSite, DiscriminatorWorker
from prism_trainer.engines.verl.losses import policy_loss
from prism_trainer.engines.verl.publication import Role
from prism_trainer.engines.verl.responses import Answered, Response
from prism_trainer.engines.verl.rollout_worker import Task
from prism_trainer.engines.verl.streaming import Refs, gather, nobody
from prism_trainer.engines.verl.trainer import PrismTrainer
from prism_trainer.responses import ParsedResponse, parse_response

POOL = "discriminator_pool"


class AlignmentTrainer(PrismTrainer):
    """Stage alignment."""

    stage: AlignmentConfig
    adversary: AdversaryResult

    def __init__(
        self,
        verl_config: DictConfig,
        job: StageJob,
        session: Session,
        rows: Rows[TaughtPrompt],
        readable: Callable[[Parsed], list[ParsedResponse | None]],
    ) -> None:
        """`readable` makes invalid what the discriminator cannot read to its end."""
        super().__init__(verl_config, job, session, rows)
        self.readable = readable

    # ---- verl's construction

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self.role_worker_mapping[VerlRole.Critic] = ray.remote(DiscriminatorWorker)
        if self.stage.gpu.discriminator_gpus:
            self.resource_pool_manager.resource_pool_spec[POOL] = list(self.config.prism.discriminator_pool)
            self.mapping[VerlRole.Critic] = POOL

    def _load_checkpoint(self) -> None:
        start = DiscriminatorSite(
            self.job.model_dump_json(by_alias=True), str(self.session.start_dir("discriminator")), str(self.session.start_dir("policy"))
        )
        self.discriminator_architecture = self.critic_wg.open(start)[0]
        self.saturated_steps = self.session.read_note("saturated_steps", 0)
        super()._load_checkpoint()

    def policy_loss(self) -> Any:
        return partial(policy_loss, loss=self.stage.loss, kl_coef=0.0)

    def roles(self) -> dict[str, Role]:
        return {**super().roles(), "discriminator": Role(self.critic_wg, self.discriminator_architecture)}

    def notes(self) -> dict[str, int]:
        return {**super().notes(), "saturated_steps": self.saturated_steps}

    # ---- one step

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, float]]:
        """Who learns in this step follows from the steps before it."""
        guard, step = self.stage.saturation_guard, global_steps - 1
        self.learns = not pauses(guard, self.saturated_steps, "discriminator")
        self.acts = step >= self.stage.discriminator_only_steps and not pauses(guard, self.saturated_steps, "policy")
        self.calls: list[Refs] = []
        return super().sample(global_steps, partition_id, batch_size)

    def _answer(self, tasks: list[Task]) -> list[Answered]:
        return gather(self.rollouts.submit(tasks), self._score_one if self._stands_apart else nobody)

    @property
    def _stands_apart(self) -> bool:
        """Whether the discriminator has GPUs of its own."""
        return self.stage.gpu.discriminator_gpus > 0

    def _score_one(self, place: int, answered: Answered) -> Refs:
        return self._score([self.to_judge(place, answered)])

    def _score(self, groups: list[Group]) -> Refs:
        """The discriminator's pass over some groups, begun: scores before its update, and its gradients."""
        self.calls.append(self.critic_wg.score_and_accumulate(groups, self.global_steps - 1, learns=self.learns))
        return self.calls[-1]

    def to_judge(self, place: int, answered: Answered) -> Group:
        """What the discriminator is given of an answered prompt."""
        parsed = [parse_response(response.text) if response.valid else None for response in answered.responses]
        return Group(place, answered.row, self.readable(parsed))

    def _compute_values(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        groups = [self.to_judge(place, answered) for place, answered in enumerate(self.draw.groups)]
        if not self._stands_apart:
            self._score(groups)
        told = [ray.get(call) for call in self.calls]
        self.score_seconds = sum(max(seconds for _, seconds in call) for call in told)
        self.parsed = [one for group in groups for one in group.parsed]
        self.adversary = judge([marks for call in told for marks, _ in call], [one is not None for one in self.parsed], self.stage)
        self.saturated_steps = count_saturated(
            self.stage.saturation_guard, self.saturated_steps, self.adversary.metrics.get("critic/d_acc")
        )
        self.told: dict[str, float] = {}
        return batch

    def compute_advantages(self) -> torch.Tensor:
        adversary, correct = self.adversary, self.correct
        right = None if correct is None else torch.tensor(correct).view_as(adversary.valid_PN)
        return stage_advantages(self.stage, adversary.caption_PN, adversary.cot_PN, adversary.valid_PN, right)

    def _update_critic(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self.stage.discriminator_update == "before":
            self._step_discriminator()
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self.acts:
            batch = super()._update_actor(batch, metrics)
        if self.stage.discriminator_update == "after":
            self._step_discriminator()
        return batch

    def _step_discriminator(self) -> None:
        """A step without any valid student leaves the discriminator as it is."""
        if self.learns and self.adversary.num_valid:
            told = self.critic_wg.step_discriminator(self.adversary.num_valid)[0]
            self.told = {f"critic/{name}": value for name, value in told.items()}

    # ---- what is told

    @property
    def responses(self) -> list[Response]:
        """Of the step, prompt by prompt."""
        return [response for group in self.draw.groups for response in group.responses]

    @property
    def correct(self) -> list[bool] | None:
        """Whose answer is right; None where some prompt has no reference. In mode default it is watched and rewards nobody."""
        if not all(group.row.references for group in self.draw.groups):
            return None
        return [one is not None and response.reward.accuracy > 0 for one, response in zip(self.parsed, self.responses, strict=True)]

    def reward_metrics(self) -> dict[str, float]:
        lengths = [response.num_tokens for response in self.responses]
        metrics = {**self.adversary.metrics, **response_metrics(lengths, self.parsed, self.correct), **self.told}
        if self._stands_apart:
            metrics["seconds/score_hidden"] = max(0.0, self.score_seconds - self.timing_raw["values"])
        if self.stage.saturation_guard:
            metrics |= {
                "guard/saturated_steps": float(self.saturated_steps),
                "guard/discriminator_learns": float(self.learns),
                "guard/policy_learns": float(self.acts),
            }
        return metrics

    def _actor_metrics(self, measured: dict[str, Any], step: int) -> dict[str, float]:
        return super()._actor_metrics(measured, step) if self.acts else {}

    def sample_records(self) -> list[dict[str, object]]:
        texts, lengths = [response.text for response in self.responses], [response.num_tokens for response in self.responses]
        batch = [group.row for group in self.draw.groups]
        return sample_records(batch, texts, lengths, self.adversary, self.advantages_PN.flatten().tolist(), self.correct)
