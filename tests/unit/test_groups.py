"""Drawing until enough groups are mixed: what is kept, when it stops, and what it says then."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.data.rows import Prompt, VerifiablePrompt
from prism_trainer.engines.local.groups import Groups, draw_mixed, join_groups
from prism_trainer.engines.local.rollout import Responses
from prism_trainer.errors import DataError
from prism_trainer.rewards.verifiable import VerifiableReward

MIXED, SOLVED, FAILED = (True, False), (True, True), (False, False)


def _groups(kinds, length=3, start=0):
    """A group of two for each kind; response r of group g is made of tokens g."""
    rows, count = 2 * len(kinds), len(kinds)
    tokens = torch.arange(start, start + count).repeat_interleave(2).unsqueeze(1).expand(rows, length).clone()
    responses = Responses(
        tokens, torch.ones(rows, length, dtype=torch.bool), torch.arange(count).repeat_interleave(2), torch.ones(rows, dtype=torch.bool)
    )
    prompts = [VerifiablePrompt(Prompt(str(start + index), "q", ()), ("1",)) for index in range(count)]
    rewards = [VerifiableReward(float(right), float(right), 1.0) for kind in kinds for right in kind]
    return Groups(prompts, responses, [f"text {start + row // 2}" for row in range(rows)], rewards)


def _ids(groups):
    return [prompt.prompt.id for prompt in groups.prompts]


def test_only_mixed_groups_are_kept_in_order_and_surplus_ones_are_left():
    batches = [_groups([SOLVED, MIXED, FAILED]), _groups([MIXED, MIXED, MIXED], length=5, start=10)]
    drawn = draw_mixed(batches.__getitem__, 3, 10)
    assert (_ids(drawn.groups), drawn.num_batches, drawn.solved, drawn.failed) == (["1", "10", "11"], 2, 1 / 6, 1 / 6)
    assert drawn.groups.texts == ["text 1", "text 1", "text 10", "text 10", "text 11", "text 11"]
    assert drawn.groups.responses.prompt_R.tolist() == [0, 0, 1, 1, 2, 2]
    assert drawn.groups.responses.lengths_R.tolist() == [3, 3, 5, 5, 5, 5]
    assert drawn.groups.responses.token_ids_RT[2].tolist() == [10] * 5


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (
            [SOLVED] * 4,
            "found 0 of the 2 mixed groups .* 12 had all answers right and 0 all wrong; the data is solved: give harder prompts",
        ),
        ([FAILED] * 4, "of 12 groups 0 had all answers right and 12 all wrong; the data is out of reach: give easier prompts"),
        ([SOLVED, FAILED], "of 6 groups 3 had all answers right and 3 all wrong; give prompts of a pass rate between 0.2 and 0.8, raise"),
    ],
    ids=["all solved", "all failed", "some of each"],
)
def test_it_stops_at_its_bound_and_says_what_it_found(kinds, sentence):
    with pytest.raises(DataError, match=sentence):
        draw_mixed(lambda _: _groups(kinds), 2, 3)


@given(st.lists(st.lists(st.sampled_from([MIXED, SOLVED, FAILED]), min_size=1, max_size=6), min_size=1, max_size=6), st.integers(1, 6))
def test_it_gives_exactly_as_many_mixed_groups_as_wanted_or_stops(batches, wanted):
    mixed = sum(kind is MIXED for batch in batches for kind in batch)
    try:
        drawn = draw_mixed(lambda number: _groups(batches[number], start=10 * number), wanted, len(batches))
    except DataError:
        assert mixed < wanted
        return
    assert len(drawn.groups.prompts) == wanted <= mixed
    correct = drawn.groups.correct_PN
    assert (correct.any(dim=1) & ~correct.all(dim=1)).all()


def test_joined_groups_keep_their_rows_together():
    joined = join_groups([_groups([MIXED, SOLVED], length=2), _groups([FAILED], length=4, start=7)])
    assert joined.correct_PN.tolist() == [[True, False], [True, True], [False, False]]
    assert joined.responses.mask_RT.sum(dim=1).tolist() == [2, 2, 2, 2, 4, 4]
    assert [int(row[0]) for row in joined.responses.token_ids_RT] == [0, 0, 1, 1, 7, 7]


@pytest.mark.parametrize(("name", "expected"), [("grpo", [[1.0, 0.0]]), ("dapo", [[0.5, -0.5]])])
def test_only_dapo_takes_off_for_length(name, expected):
    extra = {"overlong_buffer_tokens": 2} if name == "dapo" else {}
    config = RlvrConfig(algorithm={"name": name, **extra}, rollout={"max_response_tokens": 4})
    assert _groups([MIXED], length=3).rewards_and_advantages(config)[0].tolist() == expected
