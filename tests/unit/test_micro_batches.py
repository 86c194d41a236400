"""How a rank's rows are cut: each row once, a prompt's beside each other, as many micro-batches as asked for, within the budget."""

import random

import pytest

from prism_trainer.engines.verl.micro_batches import Row, cut, num_micro_batches


def _rows(prompts, size, seed=0):
    """Mixed up, as ranks may get them."""
    rng = random.Random(seed)
    lengths = [rng.randrange(5, 40) for _ in range(prompts)]
    rows = [Row(number, lengths[number], rng.randrange(1, 30)) for number in range(prompts) for _ in range(size)]
    rng.shuffle(rows)
    return rows


def _tokens(rows, part):
    """Each prompt once."""
    prompts = {rows[place].prompt: rows[place].prompt_tokens for place in part}
    return sum(prompts.values()) + sum(rows[place].response_tokens for place in part)


@pytest.mark.parametrize("budget", [70, 100, 333, 5000])
@pytest.mark.parametrize(("prompts", "size"), [(1, 1), (1, 16), (5, 3), (8, 8)])
def test_every_row_lies_in_one_of_as_many_micro_batches_as_needed_and_none_exceeds_the_budget(prompts, size, budget):
    rows = _rows(prompts, size)
    parts = cut(rows, budget, num_micro_batches(rows, budget))
    assert sorted(place for part in parts for place in part) == list(range(len(rows)))
    assert all(part and _tokens(rows, part) <= budget for part in parts)
    assert len(parts) == num_micro_batches(rows, budget) <= max(1, len(rows))


@pytest.mark.parametrize("count", [2, 5, 11, 24])
def test_there_are_as_many_as_another_rank_needs(count):
    rows = _rows(4, 6)
    parts = cut(rows, 5000, count)
    assert len(parts) == count and all(parts)
    assert sorted(place for part in parts for place in part) == list(range(24))


def test_a_prompt_is_read_by_as_few_micro_batches_as_its_place_in_the_line_allows():
    rows = _rows(6, 4)
    parts = cut(rows, 200, num_micro_batches(rows, 200))
    readings = sum(len({rows[place].prompt for place in part}) for part in parts)
    assert readings <= 6 + len(parts) - 1


def test_a_budget_counts_a_prompt_once_for_all_its_responses_that_lie_together():
    rows = [Row(0, 100, 10)] * 10
    assert num_micro_batches(rows, 200) == 1 and num_micro_batches(rows, 199) == 2


def test_micro_batches_are_about_equally_long_instead_of_full_ones_and_a_rest():
    rows = [Row(number, 10, 10) for number in range(12)]
    assert [len(part) for part in cut(rows, 100, num_micro_batches(rows, 100))] == [4, 4, 4]
