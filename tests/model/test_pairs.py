"""Pairs for the warm-up: whose prompts are trained on, and whose are measured."""

import pytest

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.engines.local.pairs import Pair, sample_pairs, split_pairs, split_prompts
from prism_trainer.errors import DataError


class Silent:
    stop_requested = False

    def phase(self, name):
        pass


def test_held_out_prompts_are_never_trained_on(make):
    taught = make.taught(20)
    held_out_ids = split_prompts(taught, 0.25, seed=0)
    training, held_out = split_pairs([Pair(row, row.teacher) for row in taught for _ in range(3)], held_out_ids)
    assert len(held_out_ids) == 5 and {pair.taught.prompt.id for pair in held_out} == held_out_ids
    assert len(training) == 45 and not {pair.taught.prompt.id for pair in training} & held_out_ids


def test_the_split_does_not_depend_on_what_the_policy_answered(make):
    taught = make.taught(20)
    assert split_prompts(taught, 0.25, seed=0) == split_prompts(list(reversed(taught)), 0.25, seed=0)


def test_a_policy_that_cannot_keep_the_format_makes_no_pairs_and_says_so(policy, encoder, make):
    config = DiscriminatorConfig(student_sampling={"maxResponseTokens": 8})
    taught = make.taught(4)
    pairs = sample_pairs(policy, encoder, taught, config, 0, Silent())
    with pytest.raises(DataError, match=r"only 0 student responses in the right format: .*train sft longer first"):
        split_pairs(pairs, split_prompts(taught, 0.25, 0))
