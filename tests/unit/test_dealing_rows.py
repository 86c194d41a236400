"""Which rank gets which responses: equally many, about as many tokens, and of as few groups as come out even."""

import random

import pytest

from prism_trainer.engines.verl.dealing import Group, deal_rows


def _groups(prompts, size, seed=0):
    rng = random.Random(seed)
    lengths = [[rng.randrange(1, 100) for _ in range(size)] for _ in range(prompts)]
    return [Group(range(number * size, (number + 1) * size), 50, own) for number, own in enumerate(lengths)]


def _shares(groups, ranks):
    order = deal_rows(groups, ranks)
    share = len(order) // ranks
    return [order[rank * share : (rank + 1) * share] for rank in range(ranks)]


@pytest.mark.parametrize(
    ("prompts", "size", "ranks", "readings"),
    [(4, 16, 1, 4), (8, 4, 4, 8), (32, 16, 8, 32), (4, 16, 8, 8), (1, 8, 8, 8), (6, 2, 4, 8), (3, 4, 2, 4), (5, 8, 4, 8), (3, 4, 6, 6)],
)
def test_ranks_get_equally_many_rows_of_as_few_groups_as_come_out_even(prompts, size, ranks, readings):
    shares = _shares(_groups(prompts, size), ranks)
    assert sorted(row for share in shares for row in share) == list(range(prompts * size))
    assert {len(share) for share in shares} == {prompts * size // ranks}
    assert sum(len({row // size for row in share}) for share in shares) == readings


def test_long_groups_are_dealt_apart_and_what_is_left_goes_to_who_has_least():
    lengths = [[90, 90], [80, 80], [5, 5], [1, 1], [4, 2]]
    groups = [Group([2 * number, 2 * number + 1], 10, own) for number, own in enumerate(lengths)]
    assert [{row // 2 for row in share} for share in _shares(groups, 2)] == [{1, 2, 3}, {0, 4, 3}]
