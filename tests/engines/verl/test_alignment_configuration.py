"""Stage alignment in verl's words, and where its discriminator works."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from discriminator_ranks import job_of
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.engines.verl.composition import ADDED, base_config, compose_verl, validate
from prism_trainer.engines.verl.overrides import Site, alignment_overrides
from prism_trainer.errors import PrismError

PAPER = {
    "data.train_batch_size": 4,
    "data.max_response_length": 6144,
    "actor_rollout_ref.rollout.n": 16,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "critic.enable": True,
    "critic.ppo_mini_batch_size": 4,
    "trainer.critic_warmup": 0,
    "trainer.total_training_steps": 500,
}


def overrides(site=None, **fields):
    config = AlignmentConfig(**fields)
    return alignment_overrides(job_of(config), config, site or Site("cuda", 1, 8, "/models/policy"))


def test_the_defaults_are_the_papers():
    config = compose_verl(overrides())
    assert {key: OmegaConf.select(config, key) for key in PAPER} == PAPER


def test_verl_itself_accepts_the_configuration(base_dir):
    validate(compose_verl(overrides(Site("cpu", 1, 1, str(base_dir)), rollout={"max_response_tokens": 16})))


def test_every_key_is_verls_own_or_known_to_be_read_though_missing_in_its_yaml():
    base = base_config()
    for key in overrides():
        parent, _, name = key.rpartition(".")
        assert key in ADDED or name in list(OmegaConf.select(base, parent).keys()), key


@pytest.mark.parametrize(
    ("nodes", "gpus", "alone", "policy", "pool"),
    [
        (1, 8, 0, (1, 8), []),
        (1, 6, 2, (1, 4), [2]),
        (3, 8, 8, (2, 8), [8]),
        (4, 4, 8, (2, 4), [4, 4]),
    ],
    ids=["shared", "some of a node's", "a node", "two nodes"],
)
def test_item_14_a_discriminator_of_its_own_leaves_the_rest_to_the_policy(nodes, gpus, alone, policy, pool):
    given = overrides(Site("cuda", nodes, gpus, "/models/policy"), gpu={"discriminator_gpus": alone})
    assert (given["trainer.nnodes"], given["trainer.n_gpus_per_node"]) == policy
    assert given["prism.discriminator_pool"] == pool


@pytest.mark.parametrize(("nodes", "gpus", "alone"), [(1, 8, 8), (1, 8, 9), (2, 8, 4), (2, 8, 16)])
def test_a_discriminator_that_leaves_nothing_or_splits_a_node_of_many_is_refused(nodes, gpus, alone):
    with pytest.raises(PrismError, match=f"gpu.discriminatorGpus is {alone}, and the stage has {nodes} nodes? of 8 GPUs: give whole nodes"):
        overrides(Site("cuda", nodes, gpus, "/models/policy"), gpu={"discriminator_gpus": alone})
