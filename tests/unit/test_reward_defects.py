"""Upstream's defects in rewards, C1 to C8 of the specification: each of these fails with upstream's behaviour."""

import inspect
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from prism_trainer.responses import parse_response
from prism_trainer.rewards.answers import answers_match, formulas_match
from prism_trainer.rewards.verifiable import verifiable_reward

GOOD = "<caption>c</caption><think>t</think><answer>7</answer>"
C8_PAIRS = [("x^2+2x+1", "(x+1)^2"), ("2x+1", "1+2x"), ("\\ln 4", "2\\ln 2"), ("x^2-1", "(x-1)^2")]
C8_VERDICTS = [True, True, True, False]


@pytest.mark.parametrize(("given", "same"), [("(3, 4)", True), ("(3 ,4)", True), ("(34)", False), ("(4,3)", False)])
def test_c1_coordinates_keep_their_comma(given, same):
    assert answers_match(given, ["(3,4)"]) is same


@pytest.mark.parametrize(
    ("left", "right", "same"), [("5kg", "5lb", False), ("5 m", "5 cm", False), ("5 m", "500 cm", True), ("5 m", "5", True)]
)
def test_c2_units_that_both_sides_give_must_agree(left, right, same):
    assert answers_match(left, [right]) is same


@pytest.mark.parametrize(("given", "same"), [("12000", True), ("12 ,000", True), ("12", False), ("1,2000", False)])
def test_c3_a_thousands_separator_splits_nothing(given, same):
    assert answers_match(given, ["12,000"]) is same


@pytest.mark.parametrize("given", ["\\sqrt{12}", "$\\sqrt{12}$", "√12", "sqrt(12)", "\\sqrt {12}"])
def test_c4_latex_without_dollars_is_latex(given):
    assert answers_match(given, ["2\\sqrt{3}"])


@pytest.mark.parametrize(("left", "right"), [("{1, 2}", "{2,1}"), ("\\{1, 2\\}", "{1, 2}"), ("1, 2", "2, 1"), ("{1/2, 3}", "{3, 0.5}")])
def test_c5_sets_and_reordered_lists_are_the_same(left, right):
    assert answers_match(left, [right])


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "<answer>8</answer>",
        "<answer>7</answer>" + GOOD,
        GOOD.replace("t<", "<answer>7</answer><"),
        GOOD + " and so on " + GOOD,
        GOOD.replace(">c<", "><"),
        GOOD.replace(">t<", "> \n <"),
        GOOD.replace("7", ""),
        GOOD.replace("<think>", "<think><think>"),
        GOOD.replace("c</caption>", "c</caption> by the way"),
    ],
    ids=["second", "first", "inside think", "repeated", "empty caption", "blank think", "empty answer", "nested", "between"],
)
def test_c6_duplicated_nested_and_empty_sections_earn_nothing(text):
    assert verifiable_reward(parse_response(GOOD), ["7"]).score == 1.0
    assert verifiable_reward(parse_response(text), ["7", "8"]).score == 0.0


def test_c7_equivalents_come_with_the_references_and_settings_by_name():
    parameters = inspect.signature(verifiable_reward).parameters
    assert [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD] == ["parsed", "references"]
    assert verifiable_reward(parse_response(GOOD), ["x", "seven"]).accuracy == 1.0
    with pytest.raises(TypeError):
        verifiable_reward(parse_response(GOOD), ["x"], ["seven"])


@pytest.mark.parametrize("judge", [answers_match, formulas_match])
def test_c8_verdicts_off_the_main_thread_are_those_on_it(judge):
    pytest.importorskip("math_verify")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(judge_pair, [(judge, *pair) for pair in C8_PAIRS * 4]))
    assert found == C8_VERDICTS * 4 == [judge_pair((judge, *pair)) for pair in C8_PAIRS] * 4


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_c8_verdicts_in_a_process_pool_are_those_outside(start):
    pytest.importorskip("math_verify")
    assert answers_match(*_given(C8_PAIRS[0]))  # so that a fork inherits a worker that is not its own
    with ProcessPoolExecutor(2, mp_context=get_context(start)) as processes:
        assert list(processes.map(judge_pair, [(answers_match, *pair) for pair in C8_PAIRS])) == C8_VERDICTS
    assert answers_match("(y+1)^2", ["y^2+2y+1"])


def test_c8_daemons_may_judge_although_they_may_have_no_children():
    pytest.importorskip("math_verify")
    with get_context("spawn").Pool(1) as pool:
        assert pool.map(judge_pair, [(answers_match, *pair) for pair in C8_PAIRS]) == C8_VERDICTS


def judge_pair(job):
    judge, reference, given = job
    return judge(given, [reference])


def _given(pair):
    return pair[1], [pair[0]]


@pytest.mark.parametrize(
    ("answer", "others", "score"),
    [
        ("7", (), 1.0),
        ("7.0", (), 1.0),
        ("$\\frac{14}{2}$", (), 1.0),
        ("\\sqrt{49}", (), 1.0),
        ("seven apples", ("seven apples",), 1.0),
        ("8", ("VII",), 0.2),
        ("", (), 0.0),
    ],
    ids=["as it stands", "by a rule", "a fraction", "by math-verify", "an equivalent answer", "wrong", "no answer"],
)
def test_item_18_the_reward_is_08_for_the_answer_and_02_for_the_format(answer, others, score):
    parsed = parse_response(GOOD.replace("7", answer))
    assert verifiable_reward(parsed, ["7", *others]).score == pytest.approx(score)
