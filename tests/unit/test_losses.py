"""Policy, preference and balance losses against closed forms."""

import math

import pytest
import torch

from prism_trainer.algorithms.losses import (
    clipped_surrogate,
    kl_to_reference,
    mean_over,
    sequence_mean_of_token_means,
    sequence_surrogate,
    surrogate,
    token_mean,
)
from prism_trainer.contract.configs import Dapo, Grpo, Gspo, PolicyLoss
from prism_trainer.discriminator.losses import bradley_terry, pair_accuracy, router_load

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


def _of_one_response(loss, log_ratios, advantage):
    """Loss per token of a response whose tokens have these log-ratios, and one token of padding with an absurd one."""
    log_probs = torch.tensor([[*log_ratios, 9.0]])
    mask = torch.tensor([[True] * len(log_ratios) + [False]])
    return surrogate(loss, log_probs, torch.zeros_like(log_probs), torch.tensor([advantage]), mask).loss_RT[0, : len(log_ratios)].tolist()


@pytest.mark.parametrize(
    ("loss", "ratio", "advantage", "expected"),
    [
        (Grpo(), 1.25, 1.0, -1.2),
        (Dapo(), 1.25, 1.0, -1.25),
        (Dapo(), 1.4, 1.0, -1.28),
        (Dapo(), 0.5, -1.0, 0.8),
        (Grpo(), 20.0, -1.0, 3.0),
        (Dapo(), 9.0, -1.0, 9.0),
        (Dapo(), 20.0, -1.0, 10.0),
    ],
    ids=[
        "grpo clips at 1.2",
        "dapo lets an unlikely token gain more",
        "dapo clips at 1.28",
        "dapo's lower clip is grpo's",
        "grpo's dual clip",
        "below dapo's dual clip",
        "dapo's dual clip",
    ],
)
def test_clip_higher_and_dual_clip_by_the_presets(loss, ratio, advantage, expected):
    assert _of_one_response(loss, [math.log(ratio)], advantage) == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize(
    ("log_ratios", "advantage", "expected"),
    [
        ([0.0002, 0.0], 1.0, -math.exp(0.0001)),
        ([0.01, 0.0], 1.0, -1.0004),
        ([-0.01, 0.0], 1.0, -math.exp(-0.005)),
        ([-0.01, 0.0], -1.0, 0.9997),
        ([0.5, -0.5], 1.0, -1.0),
        ([3.0, 3.0], -1.0, 3.0),
    ],
    ids=[
        "inside the clip",
        "clipped above",
        "a good response that became rare is not clipped",
        "a bad one that became rare is clipped below",
        "tokens that cancel",
        "the dual clip bounds it",
    ],
)
def test_gspo_has_one_ratio_a_response_the_geometric_mean_of_its_tokens(log_ratios, advantage, expected):
    assert _of_one_response(Gspo(), log_ratios, advantage) == pytest.approx([expected] * 2, rel=1e-6)


def test_gspo_clips_whole_responses():
    log_probs = torch.tensor([[0.01, 0.01], [0.0, 0.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    clips = {"clip_low": 0.0003, "clip_high": 0.0004, "dual_clip": 3.0}
    assert sequence_surrogate(log_probs, torch.zeros(2, 2), torch.tensor([1.0, 1.0]), mask, **clips).clip_fraction.item() == 0.5


def test_gspos_on_policy_gradient_weighs_responses_alike_and_grpos_tokens_alike():
    mask, advantages = torch.tensor([[True, True], [True, False]]), torch.tensor([2.0, -1.0])
    gradients = {}
    for loss in (Grpo(), Gspo()):
        log_probs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
        terms = surrogate(loss, log_probs, log_probs.detach(), advantages, mask)
        mean_over(loss, terms.loss_RT, mask, num_tokens=3, num_responses=2).backward()
        gradients[loss.name] = log_probs.grad
    torch.testing.assert_close(gradients["grpo"], torch.tensor([[-2 / 3, -2 / 3], [1 / 3, 0.0]]))
    torch.testing.assert_close(gradients["gspo"], torch.tensor([[-2 / 4, -2 / 4], [1 / 2, 0.0]]))


@pytest.mark.parametrize("loss", [PolicyLoss(), Grpo(), Dapo(), Gspo()], ids=lambda loss: type(loss).__name__)
def test_micro_batches_of_every_loss_add_up(loss):
    values, mask = torch.rand(6, 5), torch.rand(6, 5) > 0.4
    mask[:, 0] = True
    counts = {"num_tokens": int(mask.sum()), "num_responses": 6}
    parts = sum(mean_over(loss, values[i : i + 2], mask[i : i + 2], **counts) for i in (0, 2, 4))
    torch.testing.assert_close(parts, mean_over(loss, values, mask, **counts))


def test_the_sequence_mean_is_a_mean_of_means():
    values, mask = torch.tensor([[1.0, 3.0], [8.0, 99.0]]), torch.tensor([[True, True], [True, False]])
    assert sequence_mean_of_token_means(values, mask, 2).item() == 5.0 and token_mean(values, mask, 3).item() == 4.0


def test_the_kl_of_equal_policies_is_zero_and_else_positive():
    log_probs = torch.log(torch.tensor([[0.2, 0.5, 0.1]]))
    assert kl_to_reference(log_probs, log_probs).abs().max() == 0
    other = torch.log(torch.tensor([[0.4, 0.25, 0.1]]))
    expected = [2 - 1 - math.log(2), 0.5 - 1 + math.log(2), 0.0]
    torch.testing.assert_close(kl_to_reference(log_probs, other), torch.tensor([expected]))


def test_the_kl_estimate_is_right_on_average():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    estimates = kl_to_reference(policy.log().unsqueeze(0), reference.log().unsqueeze(0))[0]
    torch.testing.assert_close((policy * estimates).sum(), (policy * (policy / reference).log()).sum())


def test_a_token_that_the_reference_would_never_write_is_bounded():
    assert kl_to_reference(torch.tensor([[-100.0]]), torch.tensor([[-0.1]])).item() == 10.0


@pytest.mark.parametrize(("margin", "expected"), [(0.0, math.log(2)), (2.0, math.log(1 + math.exp(-2))), (-30.0, 30.0)])
def test_bradley_terry_is_minus_log_sigmoid_of_the_margin(margin, expected):
    assert bradley_terry(torch.tensor(margin), torch.tensor(0.0)).item() == pytest.approx(expected, rel=1e-5)


def test_equal_scores_count_half_in_the_pair_accuracy():
    assert pair_accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])) == 0.625


def balance(logits, real=None):
    """Of one text, all of whose tokens are real or those in the mask."""
    text_of = torch.zeros(len(logits), dtype=torch.long) if real is None else real.long() - 1
    return router_load([logits], text_of, 1, 2).balance().squeeze(0)


def test_an_even_router_has_a_balance_loss_of_its_experts_per_token():
    # four tokens, each preferring another pair of experts; the mean probability is even
    logits = torch.tensor([[9.0, 9.0, 0, 0], [0, 9.0, 9.0, 0], [0, 0, 9.0, 9.0], [9.0, 0, 0, 9.0]])
    assert balance(logits).item() == pytest.approx(2.0, abs=1e-4)


def test_a_collapsed_router_has_a_balance_loss_near_the_number_of_experts():
    logits = torch.tensor([[20.0, 10.0, 0, 0]]).repeat(5, 1)
    assert balance(logits).item() == pytest.approx(4.0, abs=1e-2)


def test_padding_does_not_count_in_the_balance_loss():
    logits = torch.randn(6, 4)
    mask = torch.tensor([True, True, True, False, False, False])
    torch.testing.assert_close(balance(logits, mask), balance(logits[:3]))


def test_the_balance_loss_pulls_a_collapsed_router_apart():
    logits = torch.tensor([[4.0, 2.0, 0, 0]]).repeat(5, 1).requires_grad_()
    balance(logits).backward()
    assert logits.grad[0, 0] > 0 > logits.grad[0, 3]
