"""Verdicts of the rule judge and the reward made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judges import JUDGES
from prism_trainer.responses import parse_response
from prism_trainer.rewards.answers import answers_match, answers_match_by_rules, formulas_match
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


@pytest.mark.parametrize(("answer", "reference"), [("x^2-1", "(x-1)(x+1)"), ("3(y+2)", "3y+6")])
def test_formulas_need_math_verify(answer, reference):
    pytest.importorskip("math_verify")
    assert answers_match(answer, [reference])
    assert not answers_match_by_rules(answer, [reference])


def test_math_verify_alone_knows_neither_options_nor_units():
    pytest.importorskip("math_verify")
    assert formulas_match("\\sqrt{12}", ["2\\sqrt{3}"])
    assert not formulas_match("(B) 5 cm", ["B"])
    assert not formulas_match("", [""])


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


@pytest.mark.parametrize(("judge", "accuracy"), [("RulesThenMathVerify", 1.0), ("Rules", 1.0), ("MathVerify", 0.0)])
def test_the_judge_of_the_reward_can_be_chosen(judge, accuracy):
    pytest.importorskip("math_verify")
    parsed = parse_response("<caption>c</caption><think>t</think><answer>B. red</answer>")
    assert verifiable_reward(parsed, ["(B)"], judge=JUDGES[judge]).accuracy == accuracy
