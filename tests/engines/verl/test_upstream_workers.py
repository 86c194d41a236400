"""Upstream's way of a step, which is a baseline of a benchmark: the same losses, gradients and weights as ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from discriminator_ranks import OURS, by_workers
from verl_update import Case, by_engine_verl

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def two():
    sys.path.insert(0, str(FOLDER))
    import two

    yield two
    sys.path.remove(str(FOLDER))


def test_padded_rows_leave_the_gradients_of_packed_ones(two, base_dir, tmp_path):
    ours = Case(two.a_config("grpo"), two.a_batch(), base_dir, base_dir)
    theirs = Case(ours.config, ours.batch, base_dir, base_dir, worker=("upstream_workers", "PaddedPolicyWorker"))
    found = by_engine_verl({"ours": ours, "theirs": theirs}, tmp_path, 1)
    told = ("actor/loss", "actor/entropy", "actor/grad_norm")
    assert {name: found["theirs"].metrics[name] for name in told} == pytest.approx(
        {name: found["ours"].metrics[name] for name in told}, rel=1e-4, abs=1e-6
    )
    assert two.distance(found["ours"].gradients, found["theirs"].gradients) < 1e-3


def test_scoring_and_learning_apart_come_to_what_one_pass_does(two, tmp_path):
    from prism_trainer.contract.configs import AlignmentConfig

    two.write_models(tmp_path)
    config = AlignmentConfig(
        steps=5, rollout={"group_size": 4}, micro_batch_size=4, balance_coef=0.0, score_reg_coef=0.0,
        discriminator_optimizer={"learning_rate": 1e-4},
    )  # fmt: skip
    ours, theirs = (
        by_workers(tmp_path / "discriminator", config, [two.a_step(images=True)], tmp_path / name, 1, worker=worker)
        for name, worker in (
            ("ours", OURS),
            ("theirs", ("upstream_workers", "UpstreamDiscriminator")),
        )
    )
    torch.testing.assert_close(theirs.results[0].caption_PN, ours.results[0].caption_PN, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(theirs.results[0].cot_PN, ours.results[0].cot_PN, atol=1e-4, rtol=1e-3)
    told, measured = theirs.told[0], {**ours.results[0].metrics, **ours.told[0]}
    for name in ("critic/d_loss", "critic/d_acc", "critic/teacher_cot_mean", "critic/grad_norm"):
        assert told[name] == pytest.approx(measured[name], rel=1e-3, abs=1e-4)
    assert two.distance(ours.weights, theirs.weights) < 1e-3
