"""Stage rlvr for real: verl, Ray and vLLM's CPU build, a tiny policy; each test starts them anew, which takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prism_trainer.data.order import epoch_order
from prism_trainer.engines.local.models import load_policy
from verl_jobs import NUM_PROMPTS, manifest_of, rlvr_attempt

pytestmark = pytest.mark.training


def weights(folder) -> dict[str, torch.Tensor]:
    return dict(load_policy(Path(folder), torch.device("cpu")).named_parameters())


def prompts_of(samples) -> list[int]:
    return [int(one["prompt_id"].rpartition(":")[2]) for one in samples[::4]]


TOLD = {
    "actor/loss", "actor/entropy", "actor/clip_fraction", "actor/grad_norm", "actor/lr", "actor/rollout_gap",
    "reward/mean", "reward/acc_reward/mean", "reward/format_reward/mean", "group/mixed_fraction", "response_length/mean",
    "seconds/rollout", "seconds/advantages", "seconds/update", "seconds/step", "rollout/tokens_per_second",
}  # fmt: skip
"""A metric that is no number is left out where it is told."""


def assert_sound(metrics) -> None:
    assert metrics.keys() >= TOLD
    assert metrics["actor/grad_norm"] > 0 and metrics["actor/entropy"] > 0 and "actor/skipped" not in metrics
    assert metrics["reward/format_reward/mean"] > 0.5, "the policy was taught the format"
    assert metrics["actor/rollout_gap"] < 1e-3, "vLLM and FSDP hold the same weights"


def test_grpo_stops_on_request_and_goes_on_at_the_next_step(policy_dir, data, tmp_path):
    first = rlvr_attempt(tmp_path / "1", policy_dir, data, steps=4)
    stopped = first.stop_after(1)
    assert stopped["outcome"] == "Stopped", first.log
    step = stopped["checkpoint"]["step"]
    assert 1 <= step < 4 and not manifest_of(stopped["checkpoint"]).final

    second = first.after(tmp_path / "2", stopped["checkpoint"])
    result = second.finish()
    assert result["outcome"] == "Succeeded", second.log
    told = [*first.metrics, *second.metrics]
    assert [line["step"] for line in told] == [1, 2, 3, 4]
    for line in told:
        assert_sound(line["metrics"])
    order = epoch_order(NUM_PROMPTS, 0, "rlvr", 12).tolist()
    drawn = [prompts_of(first.samples(number)) for number in range(1, step + 1)]
    drawn += [prompts_of(second.samples(number)) for number in range(step + 1, 5)]
    assert [row for step_rows in drawn for row in step_rows] == order, "each prompt once, in the stage's order, whatever interrupted it"
    manifest = manifest_of(result["checkpoint"])
    assert manifest.final and manifest.step == 4 and manifest.architectures == {"policy": "Qwen3VLForConditionalGeneration"}
    trained, before = weights(Path(result["checkpoint"]["uri"]) / "policy"), weights(policy_dir)
    assert trained.keys() == before.keys() and any(not torch.equal(trained[name], before[name]) for name in before)

    local = first.after(tmp_path / "3", stopped["checkpoint"], engine="local")
    assert local.finish()["outcome"] == "Succeeded", "engine local goes on from engine verl's checkpoint"
    assert [line["step"] for line in local.metrics] == list(range(step + 1, 5))


@pytest.mark.parametrize(
    "algorithm",
    [{"name": "dapo", "oversampling": 2, "max_generation_batches": 5, "overlong_buffer_tokens": 8}, {"name": "gspo"}],
    ids=["dapo", "gspo"],
)
def test_two_steps_of(policy_dir, data, tmp_path, algorithm):
    attempt = rlvr_attempt(tmp_path, policy_dir, data, steps=2, algorithm=algorithm)
    result = attempt.finish()
    assert result["outcome"] == "Succeeded", attempt.log
    for line in attempt.metrics:
        assert_sound(line["metrics"])
        if algorithm["name"] == "dapo":
            assert line["metrics"]["group/mixed_fraction"] == 1.0 and line["metrics"]["group/generation_batches"] >= 1
    weights(Path(result["checkpoint"]["uri"]) / "policy")
