"""Policy, preference and balance losses against closed forms."""

import math

import pytest
import torch

from prism_trainer.algorithms.losses import clipped_surrogate, token_mean
from prism_trainer.discriminator.losses import balance_loss, bradley_terry, pair_accuracy

CLIPS = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0}


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.2, 1.0, -1.2),
        (1.5, 1.0, -1.3),
        (0.5, 1.0, -0.5),
        (0.5, -1.0, 0.8),
        (1.5, -1.0, 1.5),
        (9.0, -1.0, 3.0),
    ],
    ids=[
        "on policy",
        "inside the clip",
        "clipped above",
        "a good token that became rare is not clipped",
        "a bad token that became rare is clipped below",
        "a bad token that became likely is not clipped",
        "the dual clip bounds it",
    ],
)
def test_the_surrogate_of_one_token(ratio, advantage, expected):
    terms = clipped_surrogate(
        torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1, dtype=torch.bool), **CLIPS
    )
    assert terms.loss_RT.item() == pytest.approx(expected, rel=1e-5)


def test_the_on_policy_gradient_is_minus_advantage_over_tokens():
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    terms = clipped_surrogate(log_probs, log_probs.detach(), torch.tensor([2.0, -1.0]), mask, **CLIPS)
    token_mean(terms.loss_RT, mask, 3).backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([[-2 / 3, -2 / 3], [1 / 3, 0.0]]))


def test_micro_batches_add_up_to_the_token_mean_of_the_whole():
    values, mask = torch.rand(6, 5), torch.rand(6, 5) > 0.4
    parts = sum(token_mean(values[i : i + 2], mask[i : i + 2], int(mask.sum())) for i in (0, 2, 4))
    torch.testing.assert_close(parts, values[mask].mean())


@pytest.mark.parametrize(("margin", "expected"), [(0.0, math.log(2)), (2.0, math.log(1 + math.exp(-2))), (-30.0, 30.0)])
def test_bradley_terry_is_minus_log_sigmoid_of_the_margin(margin, expected):
    assert bradley_terry(torch.tensor(margin), torch.tensor(0.0)).item() == pytest.approx(expected, rel=1e-5)


def test_equal_scores_count_half_in_the_pair_accuracy():
    assert pair_accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])) == 0.625


def test_an_even_router_has_a_balance_loss_of_its_experts_per_token():
    # four tokens, each preferring another pair of experts; the mean probability is even
    logits = torch.tensor([[9.0, 9.0, 0, 0], [0, 9.0, 9.0, 0], [0, 0, 9.0, 9.0], [9.0, 0, 0, 9.0]])
    assert balance_loss([logits], torch.ones(4, dtype=torch.bool), 2).item() == pytest.approx(2.0, abs=1e-4)


def test_a_collapsed_router_has_a_balance_loss_near_the_number_of_experts():
    logits = torch.tensor([[20.0, 10.0, 0, 0]]).repeat(5, 1)
    assert balance_loss([logits], torch.ones(5, dtype=torch.bool), 2).item() == pytest.approx(4.0, abs=1e-2)


def test_padding_does_not_count_in_the_balance_loss():
    logits = torch.randn(6, 4)
    mask = torch.tensor([True, True, True, False, False, False])
    torch.testing.assert_close(balance_loss([logits], mask, 2), balance_loss([logits[:3]], mask[:3], 2))


def test_b3_the_balance_loss_pulls_a_collapsed_router_apart():
    logits = torch.tensor([[4.0, 2.0, 0, 0]]).repeat(5, 1).requires_grad_()
    balance_loss([logits], torch.ones(5, dtype=torch.bool), 2).backward()
    assert logits.grad[0, 0] > 0 > logits.grad[0, 3]
