"""When one side pauses because the discriminator always wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.algorithms.saturation import count_saturated, pauses
from prism_trainer.contract.configs import SaturationGuard

WON, LOST, UNKNOWN = 1.0, 0.6, None


def _paused(guard, accuracies):
    """Which steps leave an update out, step by step: `d` the discriminator's, `p` the policy's, `.` neither."""
    count, found = 0, ""
    for accuracy in accuracies:
        found += "d" if pauses(guard, count, "discriminator") else "p" if pauses(guard, count, "policy") else "."
        count = count_saturated(guard, count, accuracy)
    return found


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([WON] * 3 + [LOST, WON], "...d."),
        ([WON, WON, LOST, WON, WON, WON, WON], "......d"),
        ([WON, WON, UNKNOWN, WON, WON], "....d"),
        ([WON] * 13, "...ddd...ddd."),
        ([0.9] * 6, "......"),
    ],
    ids=[
        "after three in a row, until one is lost",
        "a lost step starts the count anew",
        "a step without any valid response counts for neither",
        "a pause is at most as long as the count",
        "at the threshold is not above it",
    ],
)
def test_the_discriminator_pauses_while_it_wins(accuracies, expected):
    assert _paused(SaturationGuard(accuracy=0.9, steps=3), accuracies) == expected


def test_the_policy_can_be_the_one_that_pauses():
    assert _paused(SaturationGuard(accuracy=0.9, steps=2, pause="policy"), [WON] * 5) == "..pp."


@given(st.lists(st.sampled_from([WON, LOST, UNKNOWN])))
def test_off_by_default_nothing_ever_pauses(accuracies):
    assert set(_paused(None, accuracies)) <= {"."}


@given(st.lists(st.sampled_from([WON, LOST, UNKNOWN]), max_size=60), st.integers(1, 5))
def test_no_pause_lasts_longer_than_the_count_that_began_it(accuracies, steps):
    measured = [accuracy for accuracy in accuracies if accuracy is not UNKNOWN]
    assert "d" * (steps + 1) not in _paused(SaturationGuard(accuracy=0.9, steps=steps), measured)
