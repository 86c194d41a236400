"""Learning rates, step by step."""

import pytest

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.contract.optim import Optimizer


def _rates(total, **fields):
    config = Optimizer(learning_rate=1.0, **fields)
    return [round(learning_rate(config, step, total), 4) for step in range(total)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_steps": 2}, [0.5, 1, 1, 1]),
        ({"warmup_ratio": 0.5}, [0.5, 1, 1, 1]),
        ({"schedule": "cosine"}, [1, 0.8536, 0.5, 0.1464]),
        ({"schedule": "cosine", "warmup_steps": 2}, [0.5, 1, 1, 0.5]),
    ],
    ids=["constant", "warm-up as a count", "warm-up as a share", "half a cosine", "warm-up, then cosine"],
)
def test_the_rate_of_each_of_four_steps(fields, expected):
    assert _rates(4, **fields) == expected


def test_the_longer_of_the_two_warm_ups_holds():
    assert _rates(10, warmup_ratio=0.1, warmup_steps=4)[:4] == [0.25, 0.5, 0.75, 1.0]
