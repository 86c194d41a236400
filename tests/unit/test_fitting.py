"""What does not fit engine verl's machines is told from the configuration and their number alone."""

import re

import pytest

from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig, EvaluationConfig, RlvrConfig, SftConfig
from prism_trainer.contract.fitting import GpuNodes, misfits


def found(config, nodes, **options):
    return dict(misfits(config, GpuNodes(*nodes), **options))


@pytest.mark.parametrize(
    ("nodes", "tensor_parallel"),
    [((1, 8), 1), ((1, 8), 2), ((1, 8), 8), ((3, 8), 4), ((2, 6), 3), ((2, 8), 16), ((4, 4), 8), ((4, 8), 16)],
)
def test_an_engine_lies_within_a_node_or_has_whole_ones(nodes, tensor_parallel):
    prompts = nodes[0] * nodes[1]
    assert found(RlvrConfig(prompts_per_step=prompts, gpu={"tensor_parallel": tensor_parallel}), nodes) == {}


@pytest.mark.parametrize(
    ("nodes", "tensor_parallel"),
    [
        ((2, 6), 4),  # the second engine would lie across both
        ((3, 8), 12),  # verl: world_size 12 must be divisible by gpus_per_node 8
        ((1, 8), 16),
        ((3, 8), 16),  # one node would be left over
        ((1, 8), 3),
    ],
)
def test_an_engine_across_a_part_of_a_node_is_refused(nodes, tensor_parallel):
    told = found(RlvrConfig(prompts_per_step=nodes[0] * nodes[1], gpu={"tensor_parallel": tensor_parallel}), nodes)
    assert list(told) == ["gpu.tensorParallel"]
    assert told["gpu.tensorParallel"].startswith(f"gpu.tensorParallel is {tensor_parallel}, and the policy has {nodes[0]} node")


def test_an_engine_is_of_the_policys_gpus_alone():
    gpu = {"tensor_parallel": 4, "discriminator_gpus": 2}
    assert list(found(AlignmentConfig(prompts_per_step=6, gpu=gpu), (1, 8))) == ["gpu.tensorParallel"]
    assert found(AlignmentConfig(prompts_per_step=6, gpu={**gpu, "tensor_parallel": 3}), (1, 8)) == {}


@pytest.mark.parametrize(("nodes", "alone"), [((1, 8), 8), ((1, 8), 9), ((2, 8), 4), ((2, 8), 16), ((1, 1), 1)])
def test_a_discriminator_that_leaves_nothing_or_splits_a_node_of_many_is_refused(nodes, alone):
    told = found(AlignmentConfig(prompts_per_step=8, gpu={"discriminator_gpus": alone}), nodes)
    assert list(told) == ["gpu.discriminatorGpus"] and "leave at least one GPU to the policy" in told["gpu.discriminatorGpus"]


def test_rlvr_has_no_discriminator_to_give_gpus_to():
    told = found(RlvrConfig(gpu={"discriminator_gpus": 2}), (1, 8))
    assert told == {"gpu.discriminatorGpus": "gpu.discriminatorGpus is 2, and stage rlvr has no discriminator; leave it out"}


@pytest.mark.parametrize("kind", [SftConfig, DiscriminatorConfig, EvaluationConfig])
def test_a_device_that_nobody_would_hear_of_is_refused(kind):
    told = found(kind(device="cpu"), (1, 1))
    assert list(told) == ["device"] and re.search("does without GPUs where PRISM_VERL_ON_CPU is 1; set that", told["device"])
    assert found(kind(device="cpu"), (1, 1), on_cpu=True) == {} == found(kind(device="cuda"), (1, 1))


def test_an_evaluations_engine_that_no_machine_has_the_gpus_for_is_refused():
    config = EvaluationConfig(gpu={"tensor_parallel": 8})
    assert list(found(config, (2, 4))) == ["gpu.tensorParallel"]
    assert found(config, (1, 8)) == {} == found(config, (1, 1), on_cpu=True)
