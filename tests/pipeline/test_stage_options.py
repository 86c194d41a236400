"""What stages 2 and 3 can be asked for, carried out by the real stages on what a finished run left."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch

from prism_trainer.algorithms.reward_modes import stage_advantages
from prism_trainer.algorithms.saturation import count_saturated, pauses
from prism_trainer.contract.job import DataSource
from prism_trainer.engines.local.models import load_policy
from prism_trainer.errors import DataError
from prism_trainer.stages import alignment, rlvr
from stage_attempts import job_of, metrics_of, run_stage, samples_of
from told_steps import assert_tells_what_it_optimises

pytestmark = pytest.mark.pipeline
DAPO = {"algorithm": {"name": "dapo", "overlongBufferTokens": 16, "oversampling": 2, "maxGenerationBatches": 20}}


@dataclass(frozen=True)
class Ended:
    """A stage that ran to the end."""

    job: object
    folder: Path

    @property
    def metrics(self):
        return metrics_of(self.job)

    def samples(self, step=1):
        return samples_of(self.job, step)

    def weights(self, role):
        return (self.folder / role / "model.safetensors").read_bytes()


@pytest.fixture
def carry_out(finished, tmp_path):
    """Run a stage of the finished run again with other options."""

    def carry(stage, name="run", **config):
        job = job_of(finished, stage, tmp_path / name, config)
        return Ended(job, Path(run_stage(job).uri))

    return carry


def _input(finished, stage, role):
    (folder,) = (finished.folder / "out" / "checkpoints" / stage).glob("attempt-1/step-*")
    return (folder / role / "model.safetensors").read_bytes()


# ---- stage 2 -----------------------------------------------------------------------------------------------------------------------


def test_item_13_before_or_after_the_policys_update_gives_the_same_weights(carry_out):
    """Both are judged by scores older than either update; what differs is only when the step is taken."""
    before, after = (carry_out("alignment", order, steps=2, discriminatorUpdate=order) for order in ("before", "after"))
    assert all(before.weights(role) == after.weights(role) for role in ("policy", "discriminator"))


def test_steps_for_the_discriminator_alone_leave_the_policy_as_it_was(carry_out, finished):
    ended = carry_out("alignment", steps=2, discriminatorOnlySteps=2)
    assert ended.weights("policy") == _input(finished, "sft", "policy")
    assert ended.weights("discriminator") != _input(finished, "discriminator", "discriminator")
    assert not any(name.startswith("actor/") for step in ended.metrics for name in step)


@pytest.mark.parametrize("mode", ["default", "acc-gating", "gated", "rlvr", "rlvr-v2", "sign-align"])
def test_item_12_the_advantages_that_are_dumped_are_those_of_the_mode(carry_out, mode):
    ended = carry_out("alignment", steps=1, rewardMode=mode)
    samples = ended.samples()
    columns = {name: torch.tensor([float(one[name] or 0) for one in samples]).view(4, 4) for name in ("caption_score", "cot_score")}
    valid, correct = (torch.tensor([one[name] for one in samples]).view(4, 4) for name in ("format_valid", "correct"))
    assert int(valid.sum()) > 0 and not (correct & ~valid).any()
    expected = stage_advantages(ended.job.config, *columns.values(), valid, correct).flatten()
    torch.testing.assert_close(torch.tensor([one["advantage"] for one in samples]), expected, atol=1e-5, rtol=1e-5)


def test_a_mode_that_grades_needs_references(finished, tmp_path):
    job = job_of(finished, "alignment", tmp_path, {"rewardMode": "gated"})
    table = parquet.read_table(job.data[0].uri)
    parquet.write_table(table.drop_columns(["reward_model", "answer"]), tmp_path / "ungraded.parquet")
    with pytest.raises(DataError, match="has no ground_truth, and rewardMode 'gated' grades answers"):
        run_stage(job.model_copy(update={"data": (DataSource(uri=str(tmp_path / "ungraded.parquet")),)}))


@pytest.mark.parametrize(("side", "prefix"), [("discriminator", "critic/"), ("policy", "actor/")])
def test_item_13_the_saturation_guard_leaves_updates_out(carry_out, side, prefix):
    ended = carry_out("alignment", steps=4, saturationGuard={"accuracy": 0.5001, "steps": 1, "pause": side})
    count, seen = 0, []
    for step in ended.metrics:
        paused = pauses(ended.job.config.saturation_guard, count, side)
        assert (f"{prefix}grad_norm" in step) is not paused
        assert "critic/d_acc" in step, "a paused discriminator still measures"
        count = count_saturated(ended.job.config.saturation_guard, count, step["critic/d_acc"])
        seen.append(paused)
    assert set(seen) == {True, False}


def test_a_length_penalty_moves_the_advantage_to_the_short(carry_out):
    samples = carry_out("alignment", steps=1, lengthPenaltyCot=50.0, scoreClip=1000.0, alpha=0.0).samples()
    for start in range(0, 16, 4):
        group = [one for one in samples[start : start + 4] if one["format_valid"]]
        lengths = [one["num_tokens"] for one in group]
        if len(set(lengths)) > 1:
            best, worst = max(group, key=lambda one: one["advantage"]), min(group, key=lambda one: one["advantage"])
            assert best["num_tokens"] <= statistics.median(lengths) <= worst["num_tokens"]


@pytest.mark.parametrize("backbone", ["dense", "text"])
def test_item_8_the_ablations_discriminators_go_through_both_stages(carry_out, finished, tmp_path, backbone):
    warmed = carry_out("discriminator", "warm-up", backbone=backbone, maxSteps=2)
    assert "held_out/acc" in warmed.metrics[-1]
    job = job_of(finished, "alignment", tmp_path / "aligned", {"steps": 2})
    given = job.inputs["discriminator"].model_copy(update={"uri": str(warmed.folder / "discriminator"), "digest": None})
    run_stage(job.model_copy(update={"inputs": {**job.inputs, "discriminator": given}}))
    assert all("critic/d_acc" in step and "actor/grad_norm" in step for step in metrics_of(job))


def test_a12_every_sample_is_dumped_with_both_scores(carry_out):
    samples = carry_out("alignment", steps=1).samples()
    assert len(samples) == 16
    valid = [one for one in samples if one["format_valid"]]
    assert valid and all(isinstance(one[name], float) for one in valid for name in ("caption_score", "cot_score"))
    assert any(one["caption_score"] != one["cot_score"] for one in valid)
    assert all(one["caption_score"] is None and one["cot_score"] is None for one in samples if not one["format_valid"])


def test_a13_a_step_tells_the_scores_it_optimises_and_never_their_plain_sum(carry_out):
    ended = carry_out("alignment", steps=1, alpha=0.9)
    assert_tells_what_it_optimises(ended.metrics[0], ended.samples(), ended.job.config)


def test_item_16_what_is_watched_in_alignment(carry_out):
    (metrics,) = carry_out("alignment", steps=1).metrics
    names = """critic/d_loss critic/cap_loss critic/cot_loss critic/d_acc critic/cap_acc critic/cot_acc critic/valid_ratio critic/score_reg
        critic/student_caption_mean critic/student_cot_mean critic/teacher_caption_mean critic/teacher_cot_mean critic/grad_norm critic/lr
        critic/caption_gap critic/cot_gap reward/caption_score_mean reward/caption_score_std reward/cot_score_mean reward/cot_score_std
        reward/format_valid_ratio structure/caption_items structure/think_steps response_length/mean actor/grad_norm actor/entropy"""
    assert set(names.split()) <= metrics.keys()


def test_b5_the_warm_up_measures_pairs_it_does_not_train_on_and_can_go_on(finished, tmp_path):
    job = job_of(finished, "discriminator", tmp_path / "half")
    half = run_stage(job, last_step=3)
    assert half.step == 3 and {"held_out/caption_acc", "held_out/cot_acc"} <= metrics_of(job)[-1].keys()
    again = run_stage(job_of(finished, "discriminator", tmp_path / "again", attempt=2, resume_from=half))
    assert again.digest == finished.finals()["discriminator"][0]


# ---- stage 3 -----------------------------------------------------------------------------------------------------------------------


def test_item_17_dapo_learns_from_mixed_groups_only(carry_out):
    ended = carry_out("rlvr", steps=2, dumpEvery=1, **DAPO)
    for step in (1, 2):
        samples = ended.samples(step)
        groups = [{one["acc_reward"] for one in samples[start : start + 4]} for start in range(0, len(samples), 4)]
        assert groups == [{0.0, 1.0}] * 4
        assert all(len({one["prompt_id"] for one in samples[start : start + 4]}) == 1 for start in range(0, len(samples), 4))
    assert all(step["group/generation_batches"] >= 1 for step in ended.metrics)


def test_dapo_goes_through_its_prompts_in_order_and_repeats_none_of_a_pass(carry_out):
    ended = carry_out("rlvr", steps=2, dumpEvery=1, **DAPO)
    drawn = sum(step["group/generation_batches"] for step in ended.metrics) * 8
    ids = [one["prompt_id"] for step in (1, 2) for one in ended.samples(step)[::4]]
    assert drawn > 48 or len(set(ids)) == 8


def test_dapo_stops_on_data_that_nobody_solves(finished, tmp_path):
    job = job_of(finished, "rlvr", tmp_path, {"algorithm": {**DAPO["algorithm"], "maxGenerationBatches": 2}})
    table = parquet.read_table(job.data[0].uri)
    rows = [{**row, "reward_model": {**row["reward_model"], "ground_truth": "unreachable"}} for row in table.to_pylist()]
    parquet.write_table(type(table).from_pylist(rows), tmp_path / "hopeless.parquet")
    with pytest.raises(DataError, match=r"found 0 of the 4 mixed .* of 16 groups 0 had all .* 16 all wrong; the data is out of reach"):
        run_stage(job.model_copy(update={"data": (DataSource(uri=str(tmp_path / "hopeless.parquet")),)}))


def test_item_17_gspo_learns(carry_out, finished):
    ended = carry_out("rlvr", steps=2, algorithm={"name": "gspo"})
    assert all(step["actor/grad_norm"] > 0 or step["group/mixed_fraction"] == 0 for step in ended.metrics)
    assert ended.weights("policy") != carry_out("rlvr", "grpo", steps=2).weights("policy")


def test_the_kl_term_holds_on_to_the_policy_the_stage_began_with(carry_out):
    optimizer = {"learningRate": 1e-3}
    free = carry_out("rlvr", "free", steps=4, klCoef=1e-9, optimizer=optimizer).metrics
    held = carry_out("rlvr", "held", steps=4, klCoef=1.0, optimizer=optimizer).metrics
    assert free[0]["actor/kl"] == held[0]["actor/kl"] == 0
    assert 0 < held[-1]["actor/kl"] < free[-1]["actor/kl"]


@pytest.fixture
def policies_loaded(monkeypatch):
    """Folders of the policies that a stage of this process loads, as it goes on to do."""
    loaded = []

    def load(folder, device):
        loaded.append(folder)
        return load_policy(folder, device)

    for stage in (alignment, rlvr):
        monkeypatch.setattr(stage, "load_policy", load)
    return loaded


@pytest.mark.parametrize("stage", ["alignment", "rlvr"])
def test_item_9_without_a_coefficient_there_is_no_kl_and_no_reference_is_loaded(carry_out, policies_loaded, stage):
    (metrics,) = carry_out(stage, steps=1).metrics
    assert not any("kl" in name for name in metrics) and len(policies_loaded) == 1


def test_with_a_coefficient_there_is_a_reference_beside_the_policy(carry_out, policies_loaded):
    carry_out("rlvr", steps=1, klCoef=0.1)
    assert len(policies_loaded) == 2


@pytest.mark.parametrize(
    ("stage", "config"),
    [
        ("alignment", {"saturationGuard": {"accuracy": 0.5001, "steps": 2}, "discriminatorUpdate": "after"}),
        ("rlvr", DAPO),
        ("rlvr", {"klCoef": 0.1}),
    ],
    ids=["saturation guard", "dapo", "kl"],
)
def test_item_15_a_stage_stopped_midway_goes_on_to_the_same_bits(finished, tmp_path, stage, config):
    """The guard's count, the place in DAPO's prompts and the reference are those of an undisturbed stage."""
    whole = run_stage(job_of(finished, stage, tmp_path / "whole", {**config, "steps": 3}))
    half = run_stage(job_of(finished, stage, tmp_path / "half", {**config, "steps": 3}), last_step=2)
    assert half.step == 2
    again = run_stage(job_of(finished, stage, tmp_path / "again", {**config, "steps": 3}, attempt=2, resume_from=half))
    assert again.digest == whole.digest
