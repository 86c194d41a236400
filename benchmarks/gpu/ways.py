"""Upstream's habits in a step of engine verl, and how each gets into the processes of a run.

    offload              models and optimizer states in the node's memory between uses; a field of the stage
    old-log-prob         the policy reads all responses once more before its update, for log-probabilities that its update has anyway
    padded-policy        verl's own update: padded rows, a prompt and its image for each response, logits of all tokens
    plain-discriminator  one sample a forward, a forward for every span, first to score and again to learn (`upstream.py`)

The mathematics is one: same rewards, losses and gradients, in float32 to rounding. So the head has no dropout and the two small terms that
upstream's discriminator or ours alone has (router balance, score regularisation) are 0. As in ours, image patches go through one product
and weights are sharded layer by layer; upstream's own single unit (A14) and slow convolution are not charged to it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from given_texts import LENGTHS

HABITS = ("offload", "old-log-prob", "padded-policy", "plain-discriminator")
ROLLOUT = "actor_rollout_ref.rollout"


def change_run(habits: Collection[str], lengths: tuple[int, int], prefix_caching: bool) -> None:
    """In this process and in those that Ray starts. verl is not imported here: it looks at the environment that the stage will set."""
    from prism_trainer.engines.verl.after_import import after_import

    os.environ[LENGTHS] = f"{lengths[0]} {lengths[1]}"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    after_import("prism_trainer.engines.verl.rollout_worker", give_rollouts)
    after_import("prism_trainer.engines.verl.alignment_trainer", lambda module: take_up(habits, module))
    if not prefix_caching:
        after_import("prism_trainer.engines.verl.alignment", turn_off_prefix_caching)


def give_rollouts(rollout_worker: Any) -> None:
    from given_rollouts import GivenTexts

    rollout_worker.RolloutWorker = GivenTexts


def turn_off_prefix_caching(alignment: Any) -> None:
    """No stage asks for it, so no field does it."""
    ours = alignment.alignment_overrides
    alignment.alignment_overrides = lambda *given: {**ours(*given), f"{ROLLOUT}.enable_prefix_caching": False}


def take_up(habits: Collection[str], alignment_trainer: Any) -> None:
    from prism_trainer.engines.verl import trainer

    if "plain-discriminator" in habits:
        from upstream_workers import UpstreamDiscriminator

        alignment_trainer.DiscriminatorWorker = UpstreamDiscriminator
    if "padded-policy" in habits:
        from upstream_workers import PaddedPolicyWorker

        trainer.PolicyWorker = PaddedPolicyWorker
    if "old-log-prob" in habits:
        alignment_trainer.AlignmentTrainer = recomputing(alignment_trainer.AlignmentTrainer)


def recomputing(trainer: Any) -> Any:
    """verl's own pass for old log-probabilities; the loss is of one update a batch and takes its own, which are the same."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    class Recomputing(trainer):  # type: ignore[misc]
        _compute_old_log_prob = PPOTrainerSync._compute_old_log_prob

        def reward_metrics(self) -> dict[str, float]:
            return {**super().reward_metrics(), "seconds/old_log_prob": self.timing_raw["old_log_prob"]}

    return Recomputing
