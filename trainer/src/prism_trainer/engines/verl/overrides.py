"""A stage's configuration in verl's words. Pure: job, config and site in, a flat dictionary of verl's keys out.

Only keys are set that verl's V1 trainer and those of its workers that we keep do read. What we replace (its data sets, agent loop, reward
loop, losses, advantages, checkpoints) is not configured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from prism_trainer.contract.configs import AlignmentConfig, RlvrConfig
from prism_trainer.contract.fitting import GpuNodes, misfits_on_policy, policys_nodes
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.verl.optimizer import optimizer_overrides
from prism_trainer.errors import PrismError

OnPolicyConfig = AlignmentConfig | RlvrConfig
ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
CPU_WEIGHT_BUCKET_MB = 64
GPU_WEIGHT_BUCKET_MB = 2048


@dataclass(frozen=True)
class Site:
    """Where the stage runs: `device` is cuda or cpu, GPUs are logical ones on a CPU."""

    device: str
    num_nodes: int
    gpus_per_node: int
    policy_dir: str

    @property
    def nodes(self) -> GpuNodes:
        return GpuNodes(self.num_nodes, self.gpus_per_node)


def rlvr_overrides(job: StageJob, config: RlvrConfig, site: Site) -> dict[str, Any]:
    """For stage rlvr: a policy and, with a KL term, its reference; no critic."""
    require_fitting(config, site)
    return {**policy_overrides(job, config, site), f"{ACTOR}.use_kl_loss": config.kl_coef > 0, "critic.enable": False}


def alignment_overrides(job: StageJob, config: AlignmentConfig, site: Site) -> dict[str, Any]:
    """For stage alignment: the policy, and verl's critic, whose worker is our discriminator. Of the critic verl reads no more than this."""
    policy_site, pool = set_apart(config, site)
    return {
        **policy_overrides(job, config, policy_site),
        "prism.discriminator_pool": pool,
        "critic.enable": True,
        "critic.strategy": "fsdp2",
        "critic.model.path": site.policy_dir,
        "critic.use_dynamic_bsz": True,
        "critic.ppo_mini_batch_size": config.prompts_per_step,
    }


def set_apart(config: AlignmentConfig, site: Site) -> tuple[Site, list[int]]:
    """The policy's site, and on how many GPUs of each node the discriminator works alone."""
    require_fitting(config, site)
    nodes, alone = policys_nodes(config, site.nodes), config.gpu.discriminator_gpus
    assert nodes is not None, "what leaves the policy nothing does not fit"
    pool = [] if not alone else [alone] if site.num_nodes == 1 else [site.gpus_per_node] * (site.num_nodes - nodes.num_nodes)
    return replace(site, num_nodes=nodes.num_nodes, gpus_per_node=nodes.gpus_per_node), pool


def policy_overrides(job: StageJob, config: OnPolicyConfig, site: Site) -> dict[str, Any]:
    """What alignment and rlvr share: the policy, its rollouts, the resources; `site` is the policy's."""
    return {
        **_trainer(config, site),
        **_actor(config, site),
        **_rollout(job, config, site),
        "prism.job": job.model_dump_json(by_alias=True),
    }


def require_fitting(config: OnPolicyConfig, site: Site) -> None:
    """What verl would only notice when its workers hang or fail."""
    for _, sentence in misfits_on_policy(config, site.nodes):
        raise PrismError(sentence)
    if site.device == "cpu" and config.gpu.speculative_tokens:
        raise PrismError(
            f"gpu.speculativeTokens is {config.gpu.speculative_tokens}, and vLLM 0.24's CPU build cannot draw with guessed tokens; give 0"
        )


def _trainer(config: OnPolicyConfig, site: Site) -> dict[str, Any]:
    return {
        "trainer.device": site.device,
        "trainer.nnodes": site.num_nodes,
        "trainer.n_gpus_per_node": site.gpus_per_node,
        "trainer.total_training_steps": config.steps,
        "trainer.total_epochs": 1,
        "trainer.resume_mode": "disable",
        "trainer.val_before_train": False,
        "trainer.logger": [],
        "data.train_batch_size": config.prompts_per_step,
        "data.max_prompt_length": config.gpu.max_prompt_tokens,
        "data.max_response_length": config.rollout.max_response_tokens,
        "reward.num_workers": 0,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": site.num_nodes,
    }


def _actor(config: OnPolicyConfig, site: Site) -> dict[str, Any]:
    dtype = "fp32" if site.device == "cpu" else "bf16"
    fsdp = f"{ACTOR}.fsdp_config"
    return {
        f"{MODEL}.path": site.policy_dir,
        f"{MODEL}.use_remove_padding": False,  # verl's own; `policy_engine.py` has another
        f"{MODEL}.enable_gradient_checkpointing": site.device != "cpu" and config.gpu.gradient_checkpointing,
        f"{MODEL}.override_config": {"attn_implementation": "sdpa"},
        f"{ACTOR}.strategy": "fsdp2",
        "actor_rollout_ref.ref.strategy": "fsdp2",
        f"{ACTOR}.ppo_mini_batch_size": config.prompts_per_step,
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": config.gpu.tokens_per_gpu,
        f"{ACTOR}.calculate_entropy": True,
        f"{ACTOR}.use_torch_compile": site.device != "cpu",
        **optimizer_overrides(config.optimizer, f"{ACTOR}.optim"),
        f"{ACTOR}.optim.total_training_steps": config.steps,
        f"{fsdp}.param_offload": config.gpu.offload,
        f"{fsdp}.optimizer_offload": config.gpu.offload,
        f"{fsdp}.use_torch_compile": site.device != "cpu",
        f"{fsdp}.mixed_precision": {"param_dtype": dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        "actor_rollout_ref.ref.fsdp_config.mixed_precision": {"param_dtype": dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        "actor_rollout_ref.ref.fsdp_config.use_torch_compile": site.device != "cpu",
        "actor_rollout_ref.ref.log_prob_use_dynamic_bsz": True,
        "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu": config.gpu.tokens_per_gpu,
    }


def _rollout(job: StageJob, config: OnPolicyConfig, site: Site) -> dict[str, Any]:
    gpu, on_cpu = config.gpu, site.device == "cpu"
    longest = gpu.max_prompt_tokens + config.rollout.max_response_tokens
    speculation = {"method": "ngram", "num_speculative_tokens": gpu.speculative_tokens, "prompt_lookup_max": 4}
    return {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": config.rollout.group_size,
        f"{ROLLOUT}.temperature": config.rollout.temperature,
        f"{ROLLOUT}.top_p": config.rollout.top_p,
        f"{ROLLOUT}.top_k": -1,
        f"{ROLLOUT}.seed": job.seed,
        f"{ROLLOUT}.dtype": "float32" if on_cpu else "bfloat16",
        f"{ROLLOUT}.tensor_model_parallel_size": gpu.tensor_parallel,
        f"{ROLLOUT}.gpu_memory_utilization": gpu.memory_share,
        f"{ROLLOUT}.max_num_seqs": gpu.rollout_sequences,
        f"{ROLLOUT}.max_model_len": longest,
        f"{ROLLOUT}.max_num_batched_tokens": max(8192, longest),
        f"{ROLLOUT}.enforce_eager": on_cpu or not gpu.cuda_graphs,
        f"{ROLLOUT}.free_cache_engine": not on_cpu,
        f"{ROLLOUT}.enable_sleep_mode": not on_cpu,
        f"{ROLLOUT}.enable_prefix_caching": True,
        f"{ROLLOUT}.agent.num_workers": site.num_nodes,
        f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": CPU_WEIGHT_BUCKET_MB if on_cpu else GPU_WEIGHT_BUCKET_MB,
        **({f"{ROLLOUT}.engine_kwargs.vllm.speculative_config": json.dumps(speculation)} if gpu.speculative_tokens else {}),
    }
