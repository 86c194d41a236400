"""Captions say what the numbers say, and no more."""

import random

import pytest

from prism_operator.report.record import Series
from prism_operator.report.sentences import Moved, joined, movement, sentence


def series(*values: float) -> Series:
    return Series(tuple(range(1, len(values) + 1)), values)


def ramp(start: float, end: float, steps: int = 50) -> list[float]:
    return [start + (end - start) * step / (steps - 1) for step in range(steps)]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.0,), "was 1.00"),
        ((1.0, 2.0), "rose from 1.00 to 2.00"),
        ((2.0, 2.0), "stayed at 2.00"),
        (ramp(5.0, 1.0), "fell from 4.84 to 1.16"),
        (ramp(0.0, 8.0) + ramp(8.0, 4.0, 200), "rose from 1.96 to 7.79 at step 60 and fell to 4.24"),
        (ramp(4.0, 1.0) + ramp(1.0, 4.0), "fell from 3.72 to 1.14 at step 50 and rose to 3.72"),
    ],
)
def test_a_curve_is_described_by_its_ends_and_its_turn(values: tuple[float, ...], text: str) -> None:
    assert movement(Moved("the gap", "alignment", series(*values))) == text


def test_noise_is_not_called_a_rise() -> None:
    rng = random.Random(3)
    assert "within its noise" in movement(Moved("x", "rlvr", series(*(rng.gauss(0.5, 0.1) for _ in range(60)))))


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_not_given_a_turning_point(seed: int) -> None:
    rng = random.Random(seed)
    assert "at step" not in movement(Moved("x", "rlvr", series(*(rng.gauss(34.4, 0.2) for _ in range(20)))))


def test_what_is_learnt_in_the_first_of_a_few_points_is_no_noise() -> None:
    """The caption gap of a discriminator's warm-up, held-out, measured five times."""
    assert movement(Moved("x", "discriminator", series(0.22, 2.09, 2.36, 2.08, 2.12))) == "rose from 0.220 to 2.12"


def test_a_rise_above_the_noise_is_called_a_rise() -> None:
    rng = random.Random(3)
    assert movement(Moved("x", "rlvr", series(*(value + rng.gauss(0, 0.02) for value in ramp(0.4, 0.6, 60))))).startswith("rose from 0.4")


def test_curves_with_one_noun_share_it() -> None:
    curves = [Moved("the loss", "sft", series(2, 1)), Moved("the loss", "rlvr", series(1, 2))]
    assert sentence(curves) == "The loss fell from 2.00 to 1.00 over 2 steps of sft and rose from 1.00 to 2.00 over 2 steps of rlvr."


def test_curves_with_several_nouns_are_told_stage_by_stage() -> None:
    curves = [Moved("the a gap", "x", series(0, 1)), Moved("the b gap", "x", series(1, 0)), Moved("the a gap", "y", series(1, 1))]
    assert sentence(curves) == (
        "Over 2 steps of x, the a gap rose from 0 to 1.00 and the b gap fell from 1.00 to 0; over 2 steps of y, the a gap stayed at 1.00."
    )


def test_shares_are_written_in_percent() -> None:
    assert movement(Moved("x", "rlvr", series(0.5, 0.75), percent=True)).replace("\N{NO-BREAK SPACE}", " ") == "rose from 50.0 % to 75.0 %"


def test_lists_end_in_and() -> None:
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"
