"""Upstream's five ways of adding a verifiable reward to stage 2, each worked out by hand on one group of three.

Captions 1, 2, 3 and cots 1, 2, 3, so A = GN(1, 2, 3) = (-1, 0, 1) before anything is invalid.
"""

import math

import pytest
import torch

from prism_trainer.algorithms.reward_modes import stage_advantages
from prism_trainer.contract.configs import AlignmentConfig

MODES = ("acc-gating", "gated", "rlvr", "rlvr-v2", "sign-align")
TERMS = {"alignment_weight": 2.0, "wrong_penalty": 0.5, "accuracy_weight": 3.0, "format_weight": 1.0}


def _advantages(mode, correct=(True, False, True), valid=(True, True, True), order="normalise-then-combine", **fields):
    config = AlignmentConfig(reward_mode=mode, format_penalty=1.5, advantage=order, **fields)
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    return stage_advantages(config, scores, scores, torch.tensor([valid]), torch.tensor([correct]))[0].tolist()


def _normalised(*values):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return [(value - mean) / deviation for value in values]


R = _normalised(4.0, 1.0, 4.0)  # accuracy 3 and format 1 for the right ones, format 1 for the wrong one
R_LESS = _normalised(4.0, 0.5, 4.0)  # the wrong one has lost the wrong answer's penalty too

ALL_VALID = {
    "acc-gating": [-2.0, 0.0 - 0.5, 2.0],
    "gated": [-2.0, -0.5, 2.0],
    "rlvr": [R[0] - 2.0, R[1], R[2] + 2.0],
    "rlvr-v2": [R_LESS[0] - 2.0, R_LESS[1], R_LESS[2] + 2.0],
    "sign-align": [R_LESS[0] - 2.0, R_LESS[1] - 0.0, R_LESS[2] + 2.0],
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_in_a_group_in_the_right_format(mode):
    assert _advantages(mode, verifiable=TERMS) == pytest.approx(ALL_VALID[mode], abs=1e-4)


WRONG_FIRST = {
    "acc-gating": [-1.0 - 1.0, 0.0, 1.0],
    "gated": [-1.0, 0.0, 1.0],
    "rlvr": [_normalised(1, 2, 2)[0], _normalised(1, 2, 2)[1], _normalised(1, 2, 2)[2] + 1.0],
    "rlvr-v2": [_normalised(0, 2, 2)[0], _normalised(0, 2, 2)[1], _normalised(0, 2, 2)[2] + 1.0],
    "sign-align": [_normalised(0, 2, 2)[0] + 1.0, _normalised(0, 2, 2)[1], _normalised(0, 2, 2)[2] + 1.0],
}


@pytest.mark.parametrize("mode", MODES)
def test_what_a_wrong_answer_that_looks_unlike_the_teacher_gets(mode):
    """By upstream's weights, all 1. Only sign-align rewards a wrong answer for being unlike the teacher."""
    assert _advantages(mode, correct=(False, True, True)) == pytest.approx(WRONG_FIRST[mode], abs=1e-4)


# the last response is invalid: its scores become 0, one below the worst valid one, and A = GN(1, 2, 0) = (0, 1, -1)
WITH_INVALID = {
    "acc-gating": [0.0, 1.0 - 1.0, -1.0 - 1.5],
    "gated": [0.0, -1.0, -1.5],
    "rlvr": _normalised(2, 1, 0),
    "rlvr-v2": _normalised(2, 0, -1.5),
    "sign-align": [_normalised(2, 0, -1.5)[0], _normalised(2, 0, -1.5)[1] - 1.0, _normalised(2, 0, -1.5)[2]],
}


@pytest.mark.parametrize("mode", MODES)
def test_an_invalid_response_earns_nothing_whatever_its_answer(mode):
    found = _advantages(mode, correct=(True, False, True), valid=(True, True, False))
    assert found == pytest.approx(WITH_INVALID[mode], abs=1e-4)
    assert found == _advantages(mode, correct=(True, False, False), valid=(True, True, False))


@pytest.mark.parametrize("mode", ["default", *MODES])
def test_a9_no_mode_pushes_a_group_without_a_valid_response(mode):
    assert _advantages(mode, valid=(False, False, False)) == [0.0, 0.0, 0.0]


def test_mode_default_grades_nobody():
    config, scores, valid = AlignmentConfig(), torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    ungraded = stage_advantages(config, scores, scores, valid, None)
    assert torch.equal(ungraded, stage_advantages(config, scores, scores, valid, torch.tensor([[True, False, False]])))


def test_the_papers_order_holds_in_every_mode():
    """Captions and cots of another scale: what is combined first is dominated by the larger."""
    small, large = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    right = valid = torch.ones(1, 3, dtype=torch.bool)
    for mode in ("default", *MODES):
        first = stage_advantages(AlignmentConfig(reward_mode=mode, advantage="combine-then-normalise"), small, large, valid, right)
        last = stage_advantages(AlignmentConfig(reward_mode=mode), small, large, valid, right)
        torch.testing.assert_close(first, torch.tensor([[-1.0, 0.0, 1.0]]), atol=1e-4, rtol=0)
        torch.testing.assert_close(last, torch.zeros(1, 3), atol=1e-4, rtol=0)
