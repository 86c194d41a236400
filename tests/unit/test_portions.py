"""Who scores what: every valid response once, every teacher counted once, as many passes for each process."""

import random

import pytest

from prism_trainer.engines.portions import deal, plan_portions


def _costs(prompts, size, invalid=0.3, seed=0):
    rng = random.Random(seed)
    return [[None if rng.random() < invalid else rng.randrange(1, 100) for _ in range(size)] for _ in range(prompts)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8, 17])
@pytest.mark.parametrize(("prompts", "size", "invalid"), [(4, 16, 0.3), (1, 3, 0.0), (3, 2, 1.0), (6, 4, 0.5), (1, 1, 0.0)])
@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_every_valid_response_is_scored_once_beside_its_prompt_and_every_teacher_counts_once(ranks, prompts, size, invalid, at_once):
    costs = _costs(prompts, size, invalid)
    plan = plan_portions(costs, at_once, ranks)
    portions = [portion for own in plan for portion in own]
    valid = [row * size + place for row, group in enumerate(costs) for place, cost in enumerate(group) if cost is not None]
    assert sorted(response for portion in portions for response in portion.responses) == valid
    assert all(response // size in portion.prompts for portion in portions for response in portion.responses)
    assert sorted(prompt for portion in portions for prompt in portion.counted) == list(range(prompts))
    assert len(plan) == ranks and len({len(own) for own in plan}) == 1
    assert all(portion.prompts and len(portion.prompts) <= at_once for portion in portions)


def test_one_process_reads_in_the_order_of_the_step():
    plan = plan_portions(_costs(5, 2, invalid=0), 2, 1)
    assert [portion.prompts for portion in plan[0]] == [(0, 1), (2, 3), (4,)]
    assert [portion.responses for portion in plan[0]] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]


def test_a_prompt_stays_whole_while_there_are_no_more_processes_than_prompts():
    plan = plan_portions(_costs(4, 16, invalid=0), 1, 4)
    assert sorted(portion.prompts for own in plan for portion in own) == [(0,), (1,), (2,), (3,)]
    assert all(len(portion.responses) == 16 for own in plan for portion in own)


def test_who_has_less_to_read_keeps_the_others_company():
    plan = plan_portions(_costs(3, 2, invalid=0), 1, 2)
    company = [portion for own in plan for portion in own if not portion.counted]
    assert len(company) == 1 and company[0].responses == () and len(company[0].prompts) == 1


def test_the_longest_are_dealt_first_and_nobody_gets_more_than_his_share():
    assert deal([9, 1, 1, 1], 2) == [[0, 3], [1, 2]]
    assert deal([5, 4, 3, 2, 1, 0], 3) == [[0, 5], [1, 4], [2, 3]]
