"""Which prompts a step learns from: engine local's, in its order, and for DAPO no more batches than allowed."""

from __future__ import annotations

import pytest

from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.data.order import epoch_order
from prism_trainer.engines.verl.drawing import Order, draw_groups
from prism_trainer.engines.verl.responses import Answered, Response
from prism_trainer.errors import DataError
from prism_trainer.rewards.verifiable import VerifiableReward
from verl_update import job_of


class Numbers:
    """Rows that are their own numbers."""

    def order(self, seed, place, count):
        return epoch_order(10, seed, place, count)

    def __getitem__(self, index):
        return index


def answering(is_right):
    """Groups of four; `is_right(row, number)` says whose answer is right. Tells which rows were asked for."""
    asked = []

    def answer(tasks):
        asked.extend(int(task.row) for task in tasks)
        return [
            Answered(task.uid, int(task.row), [f"{task.uid}_{n}_0" for n in range(4)], [9] * 4, _responses(task, is_right))
            for task in tasks
        ]

    return answer, asked


def _responses(task, is_right):
    rewards = [VerifiableReward(1.0, 1.0, 1.0) if is_right(int(task.row), n) else VerifiableReward(0.2, 0.0, 1.0) for n in range(4)]
    return [Response("", 5, True, reward) for reward in rewards]


def draw(config, is_right, step=0, seen=0):
    answer, asked = answering(is_right)
    job = job_of(config)
    return draw_groups(Order(job, Numbers()), answer, step, seen), asked, epoch_order(10, job.seed, job.stage, 100).tolist()


def a_dapo(**fields):
    return RlvrConfig(prompts_per_step=2, algorithm={"name": "dapo", "oversampling": 2, "max_generation_batches": 3, **fields})


def test_a_step_takes_the_next_prompts_of_the_stages_order():
    drawn, asked, order = draw(RlvrConfig(prompts_per_step=3), lambda row, number: True, step=4, seen=12)
    assert asked == order[12:15] and drawn.num_prompts == 3 and drawn.surplus == [] and drawn.metrics == {}


def test_dynamic_sampling_keeps_the_first_mixed_groups_and_tells_what_it_took():
    drawn, asked, order = draw(a_dapo(), lambda row, number: row in MIXED and number == 0)
    assert [group.row for group in drawn.groups] == [row for row in order[: len(asked)] if row in MIXED][:2]
    assert drawn.num_prompts == len(asked) and len(drawn.surplus) == len(asked) - 2
    assert drawn.metrics["group/generation_batches"] == len(asked) / 4
    assert drawn.metrics["group/failed"] == sum(row not in MIXED for row in asked) / len(asked) and drawn.metrics["group/solved"] == 0


MIXED = (1, 4, 7)


@pytest.mark.parametrize(("right", "way_out"), [(True, "the data is solved"), (False, "the data is out of reach")])
def test_dynamic_sampling_on_data_without_mixed_groups_ends_with_a_sentence(right, way_out):
    with pytest.raises(DataError, match=rf"found 0 of the 2 mixed groups of an update in 3 batches: of 12 groups .*{way_out}"):
        draw(a_dapo(), lambda row, number: right)


def test_no_two_draws_of_a_stage_share_a_name_or_a_seed():
    order = Order(job_of(RlvrConfig()), Numbers())
    tasks = [*order.tasks(0, 0, 4), *order.tasks(0, 4, 4), *order.tasks(1, 8, 4)]
    assert len({task.uid for task in tasks}) == len({task.position for task in tasks}) == 12
