"""Group-relative advantages against hand-worked groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.algorithms.advantages import alignment_advantages, group_normalise, substitute_invalid


def test_a_group_is_normalised_with_its_own_mean_and_unbiased_deviation():
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]])
    expected = torch.tensor([[-1.0, 0.0, 1.0], [-1 / math.sqrt(3), -1 / math.sqrt(3), 2 / math.sqrt(3)]])
    torch.testing.assert_close(group_normalise(scores), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scores", [[[5.0]], [[2.0, 2.0, 2.0]], [[0.2] * 12]], ids=["a group of one", "equal scores", "whose mean rounds"])
def test_nothing_to_compare_gives_no_advantage(scores):
    assert group_normalise(torch.tensor(scores)).abs().max() == 0


def test_invalid_responses_get_one_point_less_than_the_worst_valid_one():
    scores = torch.tensor([[3.0, 9.0, 5.0], [7.0, 7.0, 7.0]])
    valid = torch.tensor([[True, False, True], [False, False, False]])
    assert substitute_invalid(scores, valid).tolist() == [[3.0, 2.0, 5.0], [-1.0, -1.0, -1.0]]


def _advantages(order="normalise-then-combine", alpha=0.25, valid=(True, True, True)):
    return alignment_advantages(
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.tensor([[6.0, 4.0, 2.0]]),
        torch.tensor([valid]),
        alpha=alpha,
        format_penalty=1.5,
        order=order,
    )[0].tolist()


def test_components_are_normalised_before_they_are_combined():
    # GN(caption) = (-1, 0, 1), GN(cot) = (1, 0, -1); 0.25 and 0.75 of them
    assert _advantages() == pytest.approx([0.5, 0.0, -0.5], abs=1e-5)


def test_the_papers_order_combines_before_it_normalises():
    # 0.25 (1, 2, 3) + 0.75 (6, 4, 2) = (4.75, 3.5, 2.25), mean 3.5, deviation 1.25
    assert _advantages("combine-then-normalise") == pytest.approx([1.0, 0.0, -1.0], abs=1e-5)


def test_an_invalid_response_is_penalised_beside_its_low_score():
    # caption (1, 2, floor 0): GN = (0, 1, -1); cot (6, 4, floor 3): mean 13/3, deviation 1.5275
    cot = [(value - 13 / 3) / 1.527525 for value in (6, 4, 3)]
    expected = [0.25 * c + 0.75 * t for c, t in zip((0, 1, -1), cot, strict=True)]
    expected[2] -= 1.5
    assert _advantages(valid=(True, True, False)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [-1.0, 0.0, 1.0]), (0.0, [1.0, 0.0, -1.0]), (0.5, [0.0, 0.0, 0.0])])
def test_captions_and_cots_count_by_their_weights(alpha, expected):
    """Captions rise and cots fall twice as fast."""
    assert _advantages(alpha=alpha) == pytest.approx(expected, abs=1e-5)


def test_a9_a_group_without_a_valid_response_pushes_nothing():
    assert _advantages(valid=(False, False, False)) == [0.0, 0.0, 0.0]


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16), st.floats(0.1, 5), st.floats(-5, 5))
def test_normalising_ignores_shift_and_scale(scores, scale, shift):
    base = torch.tensor([scores], dtype=torch.float64)
    if base.std() < 1e-2:
        return
    torch.testing.assert_close(group_normalise(base), group_normalise(base * scale + shift), atol=1e-3, rtol=1e-3)
