"""The same responses, weights and advantages: one update of engine local and one of engine verl, on one rank and on two."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file

from prism_trainer.contract.configs import AlignmentConfig, RlvrConfig
from prism_trainer.data.rows import Prompt
from prism_trainer.engines.local.models import load_policy, load_processor, save_model
from verl_update import CPU, Batch, Case, by_engine_local, by_engine_verl, held_log_probs, kl_coef_of, png, reference_log_probs

RATE = 5e-4
"""Of the first step: half of the peak."""

ALGORITHMS = {
    "grpo": {"algorithm": {"name": "grpo"}},
    "grpo_with_a_reference": {"algorithm": {"name": "grpo"}, "kl_coef": 0.5},
    "dapo": {"algorithm": {"name": "dapo", "overlong_buffer_tokens": 8}},
    "gspo": {"algorithm": {"name": "gspo"}},
}
MADE = {
    "everything at once": ([1, 0, 2], 4, 4000),
    "prompts that several micro-batches read": ([1, 1], 8, 192),
    "a rank without images beside one with": ([0, 0, 2, 1], 4, 192),
    "no image in the last micro-batch": ([1, 0, 1, 0], 4, 192),
    "no images": ([0, 0, 0], 4, 192),
    "more tokens than logits at a time": ([1, 0], 50, 8000),
}
"""Number of images of each prompt, responses of each, tokens in a micro-batch."""
READINGS = {
    "everything at once": {1: (3,), 2: (2,)},
    "prompts that several micro-batches read": {1: (1, 2, 1), 2: (1, 1)},
    "a rank without images beside one with": {2: (2, 2)},
    "no images": {1: (1, 1, 1)},
    "more tokens than logits at a time": {1: (2,), 2: (1,)},
}
CASES = [*ALGORITHMS, "alignment", *MADE, "embeddings that are no head", "a checkpoint a layer"]


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory):
    from model import write_base_model

    folder = tmp_path_factory.mktemp("other")
    write_base_model(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def untied_dir(base_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untied")
    policy = load_policy(base_dir, CPU)
    policy.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.detach() * 0.5)
    policy.config.tie_word_embeddings = policy.config.text_config.tie_word_embeddings = False
    save_model(policy, load_processor(base_dir), folder)
    return folder


def a_batch() -> Batch:
    """Three prompts, one without an image, with four responses each, of many lengths."""
    rng = random.Random(0)
    prompts = [Prompt(f"p:{number}", "What is the sum?" * (number + 1), (png(number),) if number else ()) for number in range(3)]
    token_ids = [[rng.randrange(20, 300) for _ in range(rng.choice((1, 3, 7, 7, 12)))] for _ in range(12)]
    return Batch(prompts, token_ids, torch.linspace(-2, 2, 12))


def made(images: list[int], size: int) -> Batch:
    """Prompts of one question about images of many sizes."""
    rng = random.Random(0)
    pictures = iter([png(0), png(1, 96, 64), png(2, 32, 32)])
    prompts = [
        Prompt(f"p:{n}", f"What is the sum?{n if not count else ''}", tuple(next(pictures) for _ in range(count)))
        for n, count in enumerate(images)
    ]
    token_ids = [[rng.randrange(20, 300) for _ in range(rng.choice((1, 17, 40)))] for _ in range(len(images) * size)]
    return Batch(prompts, token_ids, torch.linspace(-2, 2, len(token_ids)))


def a_config(kind=RlvrConfig, **fields) -> RlvrConfig | AlignmentConfig:
    settings = {
        "prompts_per_step": 3,
        "rollout": {"group_size": 4, "max_response_tokens": 16, "temperature": 0.8},
        "gpu": {"max_prompt_tokens": 128, "tokens_per_gpu": 160},
        "optimizer": {"learning_rate": 2 * RATE, "warmup_steps": 2, "weight_decay": 0.1},
    }
    return kind(steps=5, **{**settings, **fields})


@pytest.fixture(scope="module")
def cases(base_dir, untied_dir, other_dir):
    found = {name: Case(a_config(**fields), a_batch(), base_dir, other_dir) for name, fields in ALGORITHMS.items()}
    found["alignment"] = Case(a_config(AlignmentConfig, loss={"dual_clip": 1.5}), a_batch(), base_dir, other_dir)
    for name, (images, size, budget) in MADE.items():
        fields = {
            "prompts_per_step": len(images),
            "rollout": {"group_size": size, "max_response_tokens": 40, "temperature": 0.8},
            "gpu": {"max_prompt_tokens": 128, "tokens_per_gpu": budget},
        }
        found[name] = Case(a_config(**fields), made(images, size), base_dir, other_dir)
    many = found["more tokens than logits at a time"]
    found["embeddings that are no head"] = Case(many.config, many.batch, untied_dir, other_dir)
    few = found["everything at once"]
    on_a_gpu = {"actor_rollout_ref.model.enable_gradient_checkpointing": True}
    found["a checkpoint a layer"] = Case(few.config, few.batch, base_dir, other_dir, on_a_gpu)
    return found


@pytest.fixture(scope="module")
def outcomes(cases, tmp_path_factory):
    """By world size and case; and the folder with what the ranks wrote."""
    found = {}
    for world in (1, 2):
        folder = tmp_path_factory.mktemp(f"world{world}")
        found[world] = by_engine_verl(cases, folder, world), folder
    return found


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_one_update_is_that_of_engine_local(cases, outcomes, name, world):
    ours, theirs = by_engine_local(cases[name]), outcomes[world][0][name]
    told = ["actor/loss", "actor/entropy", "actor/grad_norm", *(["actor/kl"] if kl_coef_of(cases[name].config) else [])]
    assert {key: theirs.metrics[key] for key in told} == pytest.approx({key: ours.metrics[key] for key in told}, rel=1e-4, abs=1e-6)
    assert theirs.gradients.keys() == ours.gradients.keys()
    for parameter, gradient in ours.gradients.items():
        assert_close(theirs.gradients[parameter], gradient, parameter, rtol=1e-3, atol=1e-5)
    for parameter, weight in ours.weights.items():
        moved = ours.gradients[parameter].abs() > 1e-4 if parameter in ours.gradients else torch.ones_like(weight, dtype=torch.bool)
        assert_close(theirs.weights[parameter][moved], weight[moved], parameter, rtol=1e-5, atol=2e-6)
        assert_close(
            theirs.weights[parameter], weight, parameter, rtol=0, atol=2 * RATE
        )  # Adam's first step on a rounding error is its sign


@pytest.mark.parametrize(("name", "world"), [(name, world) for name, worlds in READINGS.items() for world in worlds])
def test_a_micro_batch_reads_each_of_its_prompts_once(outcomes, name, world):
    assert outcomes[world][0][name].readings == READINGS[name][world]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_ranks_write_the_optimizer_state_that_one_writes(outcomes, name):
    one, two = (load_file(outcomes[world][1] / name / "policy.safetensors") for world in (1, 2))
    assert one.keys() == two.keys()
    for entry, state in one.items():
        assert_close(two[entry], state, entry, rtol=1e-3, atol=1e-6)


def test_the_reference_is_the_policy_it_is_told_to_hold_to(base_dir, other_dir, tmp_path):
    config, batch = a_config(**ALGORITHMS["grpo_with_a_reference"]), a_batch()
    expected = held_log_probs(other_dir, config, batch)
    for number, found in enumerate(reference_log_probs(base_dir, other_dir, config, batch, tmp_path)):
        assert_close(found, expected[number, : len(found)], f"response {number}", rtol=1e-4, atol=1e-4)


def assert_close(found, expected, name, **tolerance):
    torch.testing.assert_close(found, expected, msg=lambda told: f"{name}: {told}", **tolerance)
