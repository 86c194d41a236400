"""verl's V1 trainer with our steps. verl places the workers, moves tensors and weights; what is drawn, rewarded and learnt is ours.

Overridden, guarded by contract tests, and but for `fit` private in verl 0.9.1: the tokenizer, the data loader (the stage's own order), the
replay buffer (whole groups as they are answered), the policy's worker, the ranks' shares, old log-probabilities (not recomputed: one
update a batch), advantages, and checkpoints. Of verl's `fit` nothing is left: it calls `_step_once`, and so do we.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import ray
import torch
import transfer_queue
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role as VerlRole
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.algorithms.shaping import rlvr_rewards_and_advantages
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import Rows
from prism_trainer.engines.local.session import Session
from prism_trainer.engines.verl.dealing import Group, deal_rows
from prism_trainer.engines.verl.drawing import Draw, Order, draw_groups, keys_of
from prism_trainer.engines.verl.losses import policy_loss
from prism_trainer.engines.verl.policy_worker import PolicyWorker
from prism_trainer.engines.verl.publication import Publication, Role
from prism_trainer.engines.verl.responses import Answered
from prism_trainer.engines.verl.rollout_worker import PARTITION, Rollouts, Task
from prism_trainer.engines.verl.streaming import gather

PARTS_OF_A_STEP = {
    "gen": "rollout", "ref": "reference", "values": "score", "adv": "advantages", "update_critic": "discriminator",
    "update_actor": "update", "sync": "sync", "save": "save",
}  # fmt: skip
"""verl's timers and our names. The weights' way to vLLM and a checkpoint are timed apart, and told with the step that follows them.

Beside them stand `seconds/step`, the whole, and, where the discriminator has GPUs of its own, `seconds/score_hidden`: how long it worked
while answers were still being drawn. `score` is then what remained of its work when all of them were there.
"""


class PrismTrainer(PPOTrainerSync):  # type: ignore[misc]
    """Stage rlvr. Alignment adds a discriminator in the critic's place."""

    trainer_mode = property(lambda self: "sync", lambda self, value: None)
    """verl takes every mode whose name it does not know for an asynchronous one."""

    def __init__(self, verl_config: DictConfig, job: StageJob, session: Session, rows: Rows[Any]) -> None:
        super().__init__(verl_config)
        self.job, self.session, self.stage, self.reporter = job, session, job.config, session.reporter
        self.order = Order(job, rows)
        self.publication = Publication(session, self.stage.steps, self.stage.save_every)
        self.prompts_seen = session.read_note("prompts_seen", session.first_step * self.stage.prompts_per_step)
        self.curr_step_profile = False
        self.seconds_between: dict[str, float] = {}

    # ---- verl's construction

    def _build_replay_buffer(self) -> PrismTrainer:
        return self

    def _init_dataloader(self) -> None:
        """None: prompts come from the stage's own order."""

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (VerlRole.ActorRollout, VerlRole.ActorRolloutRef):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(PolicyWorker)

    def _load_checkpoint(self) -> None:
        """Weights came with the workers; the optimizer's state and the loss did not, nor the stage's first policy for a reference."""
        self.global_steps = self.session.first_step
        self.actor_rollout_wg.set_loss_fn(self.policy_loss())
        self.publication.restore(self.roles())
        if self.use_reference_policy and self.job.resume_from is not None:
            self.actor_rollout_wg.hold_to(str(self.session.input_dir("policy")))

    def policy_loss(self) -> Any:
        return partial(policy_loss, loss=self.stage.algorithm, kl_coef=self.stage.kl_coef)

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(self.actor_rollout_wg, self.config_architecture())}

    def config_architecture(self) -> str:
        return str(self.model_config.architectures[0])

    def _init_tokenizer(self) -> None:
        from verl.utils.config import omega_conf_to_dataclass

        model: Any = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
        self.tokenizer, self.processor, self.model_config = model.tokenizer, model.processor, model.hf_config

    # ---- one step

    def fit(self, rollouts: Rollouts) -> dict[str, float]:
        """All steps that are left; returns the last one's metrics."""
        self.rollouts = rollouts
        self.reporter.begin(self.session.first_step, self.stage.steps)
        metrics: dict[str, float] = {}
        for step in range(self.session.first_step, self.stage.steps):
            metrics = self._one_step(step)
            self.reporter.step(step + 1, metrics)
            with self._timed("save"):
                self.publication.after_step(step + 1, self.roles(), self.notes())
            if step + 1 < self.stage.steps:
                with self.reporter.during("syncing"), self._timed("sync"):
                    self.checkpoint_manager.update_weights(step + 1)
        return metrics

    def notes(self) -> dict[str, int]:
        """Counts that cannot be told from the step."""
        return {"prompts_seen": self.prompts_seen}

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        """What lies between two steps is told with the second."""
        began = time.monotonic()
        yield
        self.seconds_between[phase] = time.monotonic() - began

    def _one_step(self, step: int) -> dict[str, float]:
        """Step `step`, counted from 0; verl counts from 1."""
        self.global_steps = step + 1
        measured: dict[str, Any] = {}
        self.timing_raw: dict[str, float] = {}
        began = time.monotonic()
        batch = self._step_once(measured, self.timing_raw, self.stage.prompts_per_step)
        metrics = {**self.reward_metrics(), **self.draw.metrics, **self._actor_metrics(measured, step), **self.rollouts.judged()}
        told = self.timing_raw | self.seconds_between
        metrics |= {f"seconds/{name}": told[verls] for verls, name in PARTS_OF_A_STEP.items() if verls in told}
        metrics["seconds/step"] = time.monotonic() - began
        metrics["rollout/tokens_per_second"] = self._num_response_tokens() / self.timing_raw["gen"]
        if step % self.stage.dump_every == 0:
            self.reporter.dump(step + 1, self.sample_records())
        transfer_queue.kv_clear(keys=[*batch.keys, *keys_of(self.draw.surplus)], partition_id=PARTITION)
        return metrics

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, float]]:
        """In the replay buffer's place: the step's groups, all of them whole."""
        with self.reporter.during("sampling"):
            self.draw: Draw = draw_groups(self.order, self._answer, global_steps - 1, self.prompts_seen)
        self.prompts_seen += self.draw.num_prompts
        groups = self.draw.groups
        tags = [{"seq_len": length} for group in groups for length in group.lengths]
        return KVBatchMeta(partition_id=partition_id, keys=keys_of(groups), tags=tags), {}

    def _answer(self, tasks: list[Task]) -> list[Answered]:
        return gather(self.rollouts.submit(tasks))

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Groups to ranks, and not single responses as verl deals them: a rank reads a prompt once for the responses it has."""
        groups: list[Group] = []
        for group in self.draw.groups:
            lengths = [response.num_tokens for response in group.responses]
            first = len(groups) * len(lengths)
            groups.append(Group(range(first, first + len(lengths)), group.lengths[0] - lengths[0], lengths))
        batch.reorder(deal_rows(groups, self.actor_rollout_wg.world_size))
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Not recomputed: the loss takes its own, detached."""
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """One number a response, from its group's rewards."""
        self.advantages_PN = self.compute_advantages()
        by_key = dict(zip(keys_of(self.draw.groups), self.advantages_PN.flatten().tolist(), strict=True))
        values = torch.tensor([[by_key[key]] for key in batch.keys])
        return transfer_queue.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict({"advantages": values}, batch_size=len(batch))
        )

    def compute_advantages(self) -> torch.Tensor:
        config: Any = self.stage
        scores = torch.tensor([[response.reward.score for response in group.responses] for group in self.draw.groups])
        lengths = torch.tensor([[response.num_tokens for response in group.responses] for group in self.draw.groups])
        self.rewards_PN, advantages_PN = rlvr_rewards_and_advantages(scores, lengths, config)
        return advantages_PN

    # ---- what is told

    def reward_metrics(self) -> dict[str, float]:
        responses = [response for group in self.draw.groups for response in group.responses]
        mixed = self.rewards_PN.amax(dim=1) > self.rewards_PN.amin(dim=1)
        return {
            "reward/mean": self.rewards_PN.mean().item(),
            "reward/acc_reward/mean": _mean(response.reward.accuracy for response in responses),
            "reward/format_reward/mean": _mean(response.reward.format for response in responses),
            "group/mixed_fraction": mixed.float().mean().item(),
            "response_length/mean": _mean(response.num_tokens for response in responses),
        }

    def _num_response_tokens(self) -> int:
        """Of all that was drawn, also in vain."""
        drawn = [*self.draw.groups, *self.draw.surplus]
        return sum(response.num_tokens for group in drawn for response in group.responses)

    def _actor_metrics(self, measured: dict[str, Any], step: int) -> dict[str, float]:
        """verl's measurements of the update under the names of engine local. Its `lr` is the next step's, and its
        `mfu` counts a prompt once for each response, as if each were read alone."""
        names = ("loss", "entropy", "clip_fraction", "kl", "grad_norm", "rollout_gap")
        metrics = {f"actor/{name}": float(measured[f"actor/{name}"]) for name in names if f"actor/{name}" in measured}
        metrics["actor/lr"] = learning_rate(self.stage.optimizer, step, self.stage.steps)
        if "perf/mfu/actor" in measured:
            metrics["actor/mfu"] = float(measured["perf/mfu/actor"])
        if not torch.isfinite(torch.tensor(metrics["actor/grad_norm"])):
            del metrics["actor/grad_norm"]
            metrics["actor/skipped"] = 1.0
        return metrics

    def sample_records(self) -> list[dict[str, object]]:
        """One record a response, for people."""
        return [
            {
                "prompt_id": group.row.prompt.id,
                "question": group.row.prompt.question,
                "reference": group.row.references[0],
                "response": response.text,
                "score": response.reward.score,
                "acc_reward": response.reward.accuracy,
                "format_reward": response.reward.format,
                "advantage": advantage,
                "num_tokens": response.num_tokens,
            }
            for group, advantages in zip(self.draw.groups, self.advantages_PN.tolist(), strict=True)
            for response, advantage in zip(group.responses, advantages, strict=True)
        ]


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
