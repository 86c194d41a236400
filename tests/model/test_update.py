"""One on-policy update moves probability to where the advantage is."""

import torch

from prism_trainer.contract.configs import Grpo
from prism_trainer.contract.optim import Optimizer, Sampling
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.rollout import sample_responses
from prism_trainer.engines.local.update import score_tokens, update_policy
from prism_trainer.seeds import generator_for


def _log_probs(policy, encoder, vocabulary, prompts, responses):
    batch = encoder.collate(prompts)
    with torch.no_grad():
        scores = score_tokens(
            policy, batch, responses.prompt_R, responses.token_ids_RT, responses.mask_RT, 1.0, vocabulary, encoder.image_token_id
        )
    return scores.log_probs_RT.sum(dim=1)


def _update(policy, encoder, vocabulary, prompts, responses, advantages, micro):
    optimizer = StageOptimizer(policy, Optimizer(learning_rate=1e-4, weight_decay=0.0), 10)
    return update_policy(
        policy, optimizer, encoder, prompts, responses, advantages, Grpo(), temperature=1.0, vocabulary=vocabulary, micro_batch_size=micro
    )


def _rollout(policy, encoder, vocabulary, prompts):
    batch = encoder.collate(prompts)
    return sample_responses(policy, batch, 4, Sampling(max_response_tokens=10), vocabulary, generator_for(3), encoder.image_token_id)


def test_good_responses_become_likelier_and_bad_ones_less_likely(policy, encoder, vocabulary, make):
    prompts = make.prompts(2)
    responses = _rollout(policy, encoder, vocabulary, prompts)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0] * 2)
    before = _log_probs(policy, encoder, vocabulary, prompts, responses)
    metrics = _update(policy, encoder, vocabulary, prompts, responses, advantages, 8)
    change = _log_probs(policy, encoder, vocabulary, prompts, responses) - before
    assert (change[advantages > 0] > 0).all() and (change[advantages < 0] < 0).all()
    assert metrics["actor/clip_fraction"] == 0.0 and metrics["actor/entropy"] > 1.0


def test_a_split_group_updates_as_the_whole(base_dir, encoder, vocabulary, make):
    from prism_trainer.engines.local.models import load_policy

    prompts, advantages = make.prompts(3), torch.linspace(-1, 1, 12)
    weights = []
    for micro in (12, 5):
        policy = load_policy(base_dir, torch.device("cpu")).eval()
        responses = _rollout(policy, encoder, vocabulary, prompts)
        metrics = _update(policy, encoder, vocabulary, prompts, responses, advantages, micro)
        weights.append((metrics["actor/grad_norm"], metrics["actor/loss"]))
    torch.testing.assert_close(torch.tensor(weights[0]), torch.tensor(weights[1]), rtol=1e-3, atol=1e-5)
