"""DAPO's overlong penalty and its choice of groups; what a RlvrConfig refuses of them."""

import pytest
import torch
from pydantic import ValidationError

from prism_trainer.algorithms.shaping import mixed_groups, overlong_penalty
from prism_trainer.contract.configs import RlvrConfig


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, 0.0), (4096, 0.0), (4097, -1 / 4096), (6144, -0.5), (8191, -4095 / 4096), (8192, -1.0)],
)
def test_the_papers_penalty_falls_from_half_the_budget_to_its_end(length, expected):
    found = overlong_penalty(torch.tensor([length]), max_tokens=8192, buffer_tokens=4096, factor=1.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_factor_scales_the_penalty():
    lengths = torch.tensor([40, 48, 56])
    assert overlong_penalty(lengths, max_tokens=56, buffer_tokens=16, factor=0.5).tolist() == [0.0, -0.25, -0.5]


def test_a_group_teaches_when_it_has_right_and_wrong_answers():
    correct = torch.tensor([[True, True], [False, True], [False, False]])
    assert mixed_groups(correct).tolist() == [False, True, False]


def test_a_ramp_longer_than_the_budget_is_refused():
    with pytest.raises(ValidationError, match=r"overlongBufferTokens is 4096, above rollout.maxResponseTokens 56: .*give at most 56"):
        RlvrConfig(algorithm={"name": "dapo"}, rollout={"max_response_tokens": 56})
    assert RlvrConfig(algorithm={"name": "dapo", "overlong_buffer_tokens": 56}, rollout={"max_response_tokens": 56})
