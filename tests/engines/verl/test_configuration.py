"""A stage's configuration in verl's words: every key exists, every number is the paper's, and what verl ignores is refused."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from prism_trainer.contract.configs import AlignmentConfig, RlvrConfig
from prism_trainer.engines.verl.composition import ADDED, base_config, compose_verl, validate
from prism_trainer.engines.verl.overrides import Site, alignment_overrides, rlvr_overrides
from prism_trainer.errors import PrismError
from verl_update import job_of

PAPER = {
    "data.train_batch_size": 32,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 8192,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.rollout.n": 16,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.max_model_len": 10240,
    "actor_rollout_ref.rollout.enable_prefix_caching": True,
    "actor_rollout_ref.rollout.enforce_eager": False,
    "actor_rollout_ref.rollout.free_cache_engine": True,
    "actor_rollout_ref.rollout.calculate_log_probs": True,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 20480,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.shuffle": False,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
    "actor_rollout_ref.actor.optim.weight_decay": 0.01,
    "actor_rollout_ref.actor.optim.clip_grad": 1.0,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.fsdp_config.param_offload": False,
    "actor_rollout_ref.actor.fsdp_config.model_dtype": "fp32",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "bf16",
    "actor_rollout_ref.actor.fsdp_config.fsdp_size": -1,
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 20480,
    "critic.enable": False,
    "trainer.total_training_steps": 1500,
    "trainer.critic_warmup": 0,
    "trainer.n_gpus_per_node": 8,
    "transfer_queue.enable": True,
}


def overrides(site=None, **fields):
    config = RlvrConfig(**fields)
    return rlvr_overrides(job_of(config), config, site or Site("cuda", 2, 8, "/models/policy"))


def test_the_defaults_are_the_papers():
    config = compose_verl(overrides())
    found = {key: OmegaConf.to_container(config, resolve=True) and OmegaConf.select(config, key) for key in PAPER}
    assert found == PAPER


def test_layers_are_kept_where_the_stage_says_so():
    config = compose_verl(overrides(gpu={"gradient_checkpointing": False}))
    assert config.actor_rollout_ref.model.enable_gradient_checkpointing is False


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
def test_verl_itself_accepts_the_configuration(base_dir, name):
    site = Site("cpu", 1, 1, str(base_dir))
    fields = {"overlong_buffer_tokens": 8} if name == "dapo" else {}
    validate(compose_verl(overrides(site, algorithm={"name": name, **fields}, kl_coef=0.1, rollout={"max_response_tokens": 16})))


def test_every_key_is_verls_own_or_known_to_be_read_though_missing_in_its_yaml():
    base = base_config()
    for key in overrides(gpu={"speculative_tokens": 4}):
        parent, _, name = key.rpartition(".")
        assert key in ADDED or name in list(OmegaConf.select(base, parent).keys()), key


def test_no_key_is_let_pass_that_no_stage_sets():
    site, alignment = Site("cuda", 2, 8, "/models/policy"), AlignmentConfig()
    ours = {**overrides(gpu={"speculative_tokens": 4}), **alignment_overrides(job_of(alignment), alignment, site)}
    assert ours.keys() >= ADDED


def test_a_key_that_verl_does_not_have_is_refused():
    with pytest.raises(PrismError, match=r"verl has no key 'actor_rollout_ref\.actor\.clip_ratio_hihg'"):
        compose_verl({"actor_rollout_ref.actor.clip_ratio_hihg": 0.28})


@pytest.mark.parametrize(
    "key",
    [
        "reward_model.reward_manager",
        "reward_model",
        "custom_reward_function.path",
        "sandbox_fusion.url",
        "algorithm.filter_groups.max_num_gen_batches",
        "actor_rollout_ref.nccl_timeout",
        "actor_rollout_ref.actor.freeze_vision_tower",
        "critic.ppo_max_token_len_per_gpu",
        "critic.ppo_infer_max_token_len_per_gpu",
        "critic.ppo_micro_batch_size_per_gpu",
    ],
)
def test_a_key_that_verl_ignores_is_refused(key):
    with pytest.raises(PrismError, match=r"accepts .* and ignores it; use "):
        compose_verl({key: 1})


def test_the_job_travels_whole():
    told = compose_verl(overrides(prompts_per_step=8)).prism.job
    assert json.loads(told)["config"]["promptsPerStep"] == 8


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"gpu": {"tokens_per_gpu": 10000}}, "gpu.tokensPerGpu is 10000, .* up to 10240; give at least 10240"),
        ({"prompts_per_step": 1, "rollout": {"group_size": 3}}, "are 3 responses, which do not spread evenly over 16 GPUs"),
        ({"gpu": {"tensor_parallel": 3}}, "gpu.tensorParallel is 3, and the policy has 2 nodes of 8 GPUs: give a divisor of 8, or whole"),
        ({"gpu": {"discriminator_gpus": 8}}, "gpu.discriminatorGpus is 8, and stage rlvr has no discriminator; leave it out"),
        ({"rollout": {"top_p": 0.7}}, "rollout.topP is 0.7: the loss scores the whole distribution"),
    ],
)
def test_what_verl_would_hang_on_is_refused_with_a_sentence(fields, sentence):
    with pytest.raises(PrismError, match=sentence):
        overrides(**fields)


def test_guessing_ahead_is_refused_on_a_cpu_whose_vllm_fails_at_it(base_dir):
    with pytest.raises(PrismError, match=r"gpu\.speculativeTokens is 4, and vLLM 0\.24's CPU build"):
        overrides(Site("cpu", 1, 1, str(base_dir)), gpu={"speculative_tokens": 4})
