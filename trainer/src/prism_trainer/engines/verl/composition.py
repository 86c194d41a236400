"""verl's whole configuration from its own yaml and our keys, each of which must exist there.

verl 0.9.1 accepts some keys that it then ignores, and a key that is new to it may be a misspelling: both are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from prism_trainer.errors import PrismError

ADDED = frozenset(
    {
        "prism.job",
        "prism.discriminator_pool",
        "actor_rollout_ref.model.override_config",
        "actor_rollout_ref.actor.fsdp_config.mixed_precision",
        "actor_rollout_ref.ref.fsdp_config.mixed_precision",
        "actor_rollout_ref.rollout.enable_sleep_mode",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config",
    }
)
"""Read by verl's dataclasses, or by us, and not in its yaml."""

IGNORED = {
    "reward_model": "reward.reward_model",
    "custom_reward_function": "reward.custom_reward_function",
    "sandbox_fusion": "reward.sandbox_fusion",
    "algorithm.filter_groups.max_num_gen_batches": "algorithm.maxGenerationBatches of the stage",
    "actor_rollout_ref.nccl_timeout": "NCCL's own environment",
    "actor_rollout_ref.actor.freeze_vision_tower": "nothing, no engine reads it",
    "critic.ppo_max_token_len_per_gpu": "microBatchSize of the stage, by which the discriminator reads",
    "critic.ppo_infer_max_token_len_per_gpu": "microBatchSize of the stage, by which the discriminator reads",
    "critic.ppo_micro_batch_size_per_gpu": "microBatchSize of the stage, by which the discriminator reads",
}
"""Keys that compose and have no effect in verl 0.9.1's V1 trainer, or none on the discriminator in its critic's place; and what has it."""


def compose_verl(overrides: Mapping[str, Any]) -> DictConfig:
    """`ppo_trainer` with `overrides`, resolved.

    Raises:
        PrismError: for a key that verl does not have, or has and ignores.
    """
    config = base_config()
    for key, value in overrides.items():
        _require_effective(key)
        if key not in ADDED and not _exists(config, key):
            raise PrismError(f"verl has no key '{key}'; this is an error in prism's engine verl, report it")
        with open_dict(config):
            OmegaConf.update(config, key, value, merge=key not in ADDED, force_add=True)
    config.transfer_queue.enable = True
    OmegaConf.resolve(config)
    return config


def base_config() -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


def validate(config: DictConfig) -> None:
    """verl's own checks; they load the policy's configuration and tokenizer."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except (AssertionError, ValueError) as error:
        raise PrismError(f"verl refuses the stage's configuration: {error}; change the fields it names") from error


def _require_effective(key: str) -> None:
    for ignored, instead in IGNORED.items():
        if key == ignored or key.startswith(f"{ignored}."):
            raise PrismError(f"verl 0.9.1 accepts '{key}' and ignores it; use {instead}")


def _exists(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in list(node.keys())  # `in node` is false for what must be given
