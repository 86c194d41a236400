"""Pairs for the warm-up: whose prompts are trained on, and whose are measured."""

from dataclasses import replace

import pytest

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.engines.local.pairs import Pairs, sample_pairs, split_pairs, split_prompts
from prism_trainer.errors import DataError


class Taught(list):
    """Rows in memory."""

    def id(self, index):
        return self[index].prompt.id


class Silent:
    stop_requested = False

    def phase(self, name):
        pass


def test_held_out_prompts_are_never_trained_on(make):
    taught = Taught(make.taught(20))
    held_out_ids = split_prompts(taught, 0.25, seed=0)
    training, held_out = split_pairs(Pairs(taught, [(n, row.teacher) for n, row in enumerate(taught) for _ in range(3)]), held_out_ids)
    assert len(held_out_ids) == 5 and {pair.taught.prompt.id for pair in held_out} == held_out_ids
    assert len(training) == 45 and not {pair.taught.prompt.id for pair in training} & held_out_ids


def test_the_split_does_not_depend_on_what_the_policy_answered(make):
    taught = Taught(make.taught(20))
    assert split_prompts(taught, 0.25, seed=0) == split_prompts(Taught(reversed(taught)), 0.25, seed=0)


def test_a_policy_that_cannot_keep_the_format_makes_no_pairs_and_says_so(policy, encoder, make):
    config = DiscriminatorConfig(student_sampling={"maxResponseTokens": 8})
    taught = Taught(make.taught(4))
    pairs = sample_pairs(policy, encoder, taught, config, 0, Silent())
    with pytest.raises(DataError, match=r"only 0 student responses in the right format: .*train sft longer first"):
        split_pairs(pairs, split_prompts(taught, 0.25, 0))


def test_a_row_with_a_student_of_its_own_is_not_sampled_for(policy, encoder, make):
    taught = Taught(replace(row, student=row.teacher) for row in make.taught(3))
    pairs = sample_pairs(policy, encoder, taught, DiscriminatorConfig(), 0, Silent())
    assert [(pair.taught, pair.student) for pair in pairs] == [(row, row.teacher) for row in taught]


def _with_long_students(make, *numbers):
    """Four rows with students of their own, some of them long."""
    long = make.response(think="3 plus 4 gives 7 " * 100)
    return Taught(replace(row, student=long if number in numbers else row.teacher) for number, row in enumerate(make.taught(4)))


def test_a_student_above_the_longest_sequence_makes_no_pair_and_is_counted(policy, encoder, make, caplog):
    taught = _with_long_students(make, 1, 3)
    pairs = sample_pairs(policy, encoder, taught, DiscriminatorConfig(max_length=256), 0, Silent())
    assert [pair.taught for pair in pairs] == [taught[0], taught[2]] and pairs.metrics == {"students/too_long": 2.0}
    assert caplog.messages == ["2 of 4 students' responses are above maxLength 256 and left out; raise it to train on them"]


def test_where_too_few_students_are_left_those_that_are_too_long_are_named(policy, encoder, make):
    taught = _with_long_students(make, 0, 1, 2, 3)
    pairs = sample_pairs(policy, encoder, taught, DiscriminatorConfig(max_length=256), 0, Silent())
    with pytest.raises(DataError, match=r"only 0 student responses .* 4 more are above maxLength, raise it; train sft longer first"):
        split_pairs(pairs, split_prompts(taught, 0.25, 0))
