"""Verdicts of the rule judge and the reward made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.responses import parse_response
from prism_trainer.rewards.answers import answers_match
from prism_trainer.rewards.verifiable import verifiable_reward


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("7", "7", True),
        (" 7. ", "7", True),
        ("7.0", "7", True),
        ("$7$", "7", True),
        ("12,000", "12000", True),
        ("-3", "-3.0000001", True),
        ("1e-9", "0.000000001", True),
        ("0.0000004", "0.0000003", False),
        ("0", "0.0000001", False),
        ("1000000", "1000002", False),
        ("B", "b", True),
        ("(B)", "B", True),
        ("B)", "B", True),
        ("B.", "(b)", True),
        ("(B)", "C", False),
        ("(3)", "3", False),
        ("B", "B 5", False),
        ("two  words", "Two words", True),
        ("8", "7", False),
        ("70", "7", False),
        ("", "7", False),
        ("(3,4)", "(34)", False),
        ("3,4", "34", False),
        ("5kg", "5lb", False),
        ("7 " * 600, "7", False),
        ("1e999", "1e998", False),
        ("nan", "7", False),
    ],
)
def test_an_answer_is_the_reference_or_not(answer, reference, same):
    assert answers_match(answer, [reference]) is same


def test_any_of_several_references_will_do():
    assert answers_match("0.5", ["1/2", "0.50"])


@given(st.text(max_size=50))
def test_an_answer_equals_itself_unless_it_says_nothing(text):
    assert answers_match(text, [text]) is bool(text.strip())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<caption>c</caption><think>t</think><answer>7</answer>", (1.0, 1.0, 1.0)),
        ("<caption>c</caption><think>t</think><answer>8</answer>", (0.2, 0.0, 1.0)),
        ("<think>t</think><answer>7</answer>", (0.0, 0.0, 0.0)),
    ],
    ids=["right", "wrong answer, right format", "wrong format"],
)
def test_the_reward_is_eight_tenths_accuracy_and_two_tenths_format(text, expected):
    reward = verifiable_reward(parse_response(text), ["7"])
    assert (reward.score, reward.accuracy, reward.format) == pytest.approx(expected)
