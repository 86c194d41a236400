"""Stage alignment for real: verl, Ray and vLLM's CPU build, a tiny policy and discriminator; each test starts them anew, for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prism_trainer.engines.local.models import load_discriminator, load_policy
from told_steps import assert_tells_what_it_optimises
from verl_jobs import alignment_attempt, manifest_of, write_discriminator

pytestmark = pytest.mark.training
CPU = torch.device("cpu")
STEPS = 5


@pytest.fixture(scope="module")
def discriminator_dir(policy_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("discriminator")
    write_discriminator(policy_dir, folder)
    return folder


TOLD = {
    "actor/loss", "actor/entropy", "actor/clip_fraction", "actor/grad_norm", "actor/lr", "actor/rollout_gap",
    "critic/d_loss", "critic/d_acc", "critic/grad_norm", "critic/valid_ratio", "critic/balance_loss", "critic/caption_gap",
    "critic/cot_gap", "critic/score_reg", "reward/caption_score_mean", "reward/cot_score_mean", "reward/format_valid_ratio",
    "seconds/rollout", "seconds/score", "seconds/discriminator", "seconds/update", "seconds/step", "rollout/tokens_per_second",
}  # fmt: skip
"""A metric that is no number is left out where it is told."""


def assert_sound(metrics) -> None:
    assert metrics.keys() >= TOLD
    assert metrics["actor/grad_norm"] > 0 and metrics["critic/grad_norm"] > 0 and "critic/skipped" not in metrics
    assert metrics["reward/format_valid_ratio"] > 0.5, "the policy was taught the format"
    assert metrics["actor/rollout_gap"] < 1e-3, "vLLM and FSDP hold the same weights"


def assert_exported(checkpoint, policy_dir, discriminator_dir) -> None:
    """Both models load, with a head that has learnt, and are not what they were."""
    folder = Path(checkpoint["uri"])
    assert manifest_of(checkpoint).architectures == {
        "policy": "Qwen3VLForConditionalGeneration", "discriminator": "Qwen3VLMoeDiscriminator"
    }  # fmt: skip
    pairs = [
        (load_policy(folder / "policy", CPU), load_policy(policy_dir, CPU)),
        (load_discriminator(folder / "discriminator", CPU), load_discriminator(discriminator_dir, CPU)),
    ]
    for trained, before in pairs:
        now, was = trained.state_dict(), before.state_dict()
        assert now.keys() == was.keys() and any(not torch.equal(now[name], was[name]) for name in was)
    assert not torch.equal(pairs[1][0].score.weight, pairs[1][1].score.weight)


def test_alignment_stops_on_request_and_goes_on_with_a_discriminator_apart(request, policy_dir, discriminator_dir, data, tmp_path):
    """At the next step; first on a Ray of its own with one GPU for both, then on one with a GPU for each."""
    options = {"saturation_guard": {"accuracy": 0.99}, "device": "cpu", "alpha": 0.9}
    first = alignment_attempt(tmp_path / "1", policy_dir, discriminator_dir, data, steps=STEPS, **options)
    stopped = first.stop_after(2)
    assert stopped["outcome"] == "Stopped", first.log
    step = stopped["checkpoint"]["step"]
    assert 2 <= step < STEPS and not manifest_of(stopped["checkpoint"]).final

    request.getfixturevalue("ray_address")
    second = first.after(tmp_path / "2", stopped["checkpoint"], gpu={"discriminator_gpus": 1})
    result = second.finish()
    assert result["outcome"] == "Succeeded", second.log
    told = [*first.metrics, *second.metrics]
    assert [line["step"] for line in told] == list(range(1, STEPS + 1))
    for line in told:
        assert_sound(line["metrics"])
        assert ("seconds/score_hidden" in line["metrics"]) is (line["step"] > step), "the discriminator apart reads while others are drawn"
    for attempt in (first, second):
        for line in attempt.metrics:
            assert_tells_what_it_optimises(line["metrics"], attempt.samples(line["step"]), attempt.job.config)
    accuracy = [line["metrics"]["critic/d_acc"] for line in told]
    assert accuracy[-1] > max(accuracy[0], 0.9), "teachers say other words than the policy ever does"
    assert_exported(result["checkpoint"], policy_dir, discriminator_dir)
    samples = second.samples(STEPS)
    assert {one["prompt_id"] for one in samples} and all(one["caption_score"] is not None for one in samples if one["format_valid"])

    local = first.after(tmp_path / "3", stopped["checkpoint"], engine="local")
    assert local.finish()["outcome"] == "Succeeded", "engine local goes on from engine verl's checkpoint"
    assert [line["step"] for line in local.metrics] == list(range(step + 1, STEPS + 1))


@pytest.mark.long
def test_options_of_a_step(monkeypatch, policy_dir, discriminator_dir, data, tmp_path):
    """The discriminator alone, then both, its update after the policy's; a verifiable reward beside the scores."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = {"discriminator_only_steps": 1, "discriminator_update": "after", "reward_mode": "gated", "length_penalty_cot": 0.1}
    attempt = alignment_attempt(tmp_path, policy_dir, discriminator_dir, data, steps=2, **options)
    result = attempt.finish()
    assert result["outcome"] == "Succeeded", attempt.log
    alone, both = (line["metrics"] for line in attempt.metrics)
    assert "actor/grad_norm" not in alone and alone["critic/grad_norm"] > 0
    assert both["actor/grad_norm"] > 0 and both["critic/grad_norm"] > 0
    assert_exported(result["checkpoint"], policy_dir, discriminator_dir)
