"""Sampling: the right distribution, and nothing that breaks the next forward."""

import pytest
import torch

from prism_trainer.contract.optim import Sampling
from prism_trainer.engines.local.rollout import PLACEHOLDERS, decode_responses, draw_token, keep_nucleus, sample_responses
from prism_trainer.engines.local.update import score_tokens
from prism_trainer.seeds import generator_for


def _sample(policy, encoder, vocabulary, prompts, group_size=4, seed=0, **sampling):
    settings = Sampling(**{"max_response_tokens": 12, **sampling})
    batch = encoder.collate(prompts)
    return sample_responses(policy, batch, group_size, settings, vocabulary, generator_for(seed), encoder.image_token_id)


def test_the_nucleus_is_the_smallest_set_that_reaches_its_mass():
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]])
    kept = keep_nucleus(probabilities, 0.7) > 0
    assert kept.tolist() == [[False, True, False, True], [True, False, False, False]]


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, [0.2, 0.8]), (0.5, [1 / 17, 16 / 17])])
def test_tokens_are_drawn_from_the_tempered_softmax(temperature, expected):
    logits = torch.tensor([[0.2, 0.8]]).log().repeat(20000, 1)
    drawn = draw_token(logits, Sampling(temperature=temperature), generator_for(0))
    assert drawn.float().mean().item() == pytest.approx(expected[1], abs=0.01)


def test_a_token_of_probability_zero_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).repeat(5000, 1)
    assert set(draw_token(logits, Sampling(), generator_for(1)).tolist()) == {1}


def test_cached_decoding_draws_what_plain_forwards_say(policy, encoder, vocabulary, make):
    """Near temperature 0 the cached sampler must follow the most likely token of an uncached forward over the whole row."""
    prompts = make.prompts()
    responses = _sample(policy, encoder, vocabulary, prompts, group_size=1, temperature=1e-4)
    batch = encoder.collate(prompts)
    with torch.no_grad():
        scores = score_tokens(
            policy, batch, responses.prompt_R, responses.token_ids_RT, responses.mask_RT, 1.0, vocabulary, encoder.image_token_id
        )
        cold = score_tokens(
            policy, batch, responses.prompt_R, responses.token_ids_RT, responses.mask_RT, 1e-4, vocabulary, encoder.image_token_id
        )
    assert scores.log_probs_RT.abs().sum() > 1
    assert cold.log_probs_RT.abs().max() < 1e-2


def test_vision_placeholders_and_unused_rows_are_never_sampled(policy, encoder, vocabulary, make):
    """A sampled <|image_pad|> makes the next forward fail, because no image belongs to it."""
    with torch.no_grad():
        policy.lm_head.weight[encoder.image_token_id] *= 0
        policy.model.language_model.norm.weight.fill_(0.0)  # every token is equally likely
    responses = _sample(policy, encoder, vocabulary, make.prompts(), group_size=64, max_response_tokens=32)
    seen = set(responses.token_ids_RT[responses.mask_RT].tolist())
    tokenizer = encoder.tokenizer
    assert len(seen) > 150
    assert not seen & set(tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))) and max(seen) < len(tokenizer)


def test_rows_are_grouped_by_prompt_and_masks_end_with_the_terminator(policy, encoder, vocabulary, make):
    responses = _sample(policy, encoder, vocabulary, make.prompts(), group_size=4, max_response_tokens=400)
    assert responses.prompt_R.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    end = encoder.tokenizer.eos_token_id
    for ids, mask, ended in zip(responses.token_ids_RT, responses.mask_RT, responses.ended_R, strict=True):
        kept = ids[mask].tolist()
        assert (kept.count(end), kept[-1] == end) == ((1, True) if ended else (0, False))
    assert not any("<|im_end|>" in text for text in decode_responses(encoder.tokenizer, responses))


def test_the_same_seed_draws_the_same_responses(policy, encoder, vocabulary, make):
    first, again, other = (_sample(policy, encoder, vocabulary, make.prompts(), seed=seed).token_ids_RT for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
