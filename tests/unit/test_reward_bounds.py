"""Whatever a policy writes: no judge raises, none takes long, and what was cut is counted."""

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judges import JUDGES
from prism_trainer.responses import TAGS, parse_response
from prism_trainer.rewards.answers import MAX_ANSWER_CHARS, answers_match, answers_match_by_rules
from prism_trainer.rewards.listings import parse_listing
from prism_trainer.rewards.symbolic import MAX_FORMULA_CHARS, SymbolicCounts, SymbolicJudge, is_too_large
from prism_trainer.rewards.verifiable import symbolic_metrics, verifiable_reward

MEGABYTE = 1_000_000
SEEDS = [
    *("a", " ", "9", "{", "}", "(", ")", "((", "()", "$", "\\", "\\frac{", "\\frac{1}{2}", "\\sqrt", "\\text{", "9^", "9**", "1,", "1,000"),
    *("{1,2},", "√", "x=", "-", "(1)", "A. ", "yes ", "\n", "\0", "é", "½", "<answer>", "1/", "5 m ", " and ", ":", "°", "!"),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("judge", sorted(JUDGES))
def test_a_megabyte_of_anything_is_judged_at_once(judge, seed):
    text = (seed * MEGABYTE)[:MEGABYTE]
    start = time.process_time()
    assert not JUDGES[judge](text, ["7"])
    assert not JUDGES[judge]("7", [text, text])
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("judge", ["Rules", "RulesThenMathVerify"])
def test_the_longest_answer_that_is_read_at_all_is_judged_soon(judge, seed):
    text = (seed * MAX_ANSWER_CHARS)[: MAX_ANSWER_CHARS - 1]
    start = time.perf_counter()
    for other in ("7", "x" + text[1:], text[:-1] + "7", "(x+1)^2"):
        JUDGES[judge](text, [other])
        JUDGES[judge](other, [text])
    assert time.perf_counter() - start < 20.0


@pytest.mark.parametrize("seed", [*SEEDS, *TAGS, "<caption>x", "<caption> </caption>", "</think> "])
def test_a_megabyte_of_anything_is_parsed_at_once(seed):
    filler = (seed * MEGABYTE)[:MEGABYTE]
    start = time.process_time()
    for text in (filler, *("".join((*TAGS[:cut], filler, *TAGS[cut:])) for cut in range(7))):
        verifiable_reward(parse_response(text), ["7"])
    assert time.process_time() - start < 4.0


@pytest.mark.parametrize(
    "text",
    [
        "+".join(f"1/{prime}^1100" for prime in (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)),
        "*".join(["9^999"] * 150),
        "+".join(["1e999/7"] * 120),
        "2" + "^999" * 200,
        "(" * 500 + "1" + ")" * 500,
        "-" * 900 + "1",
        "sqrt(2)^" * 100 + "2",
        ", ".join(["x^2+y^2"] * 32),
    ],
    ids=lambda text: text[:12],
)
def test_no_sum_is_hard(text):
    start = time.process_time()
    answers_match_by_rules(text, ["7", text + "1", ", ".join(["y^2+x^2"] * 32)])
    assert time.process_time() - start < 1.0


TEXT = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from([*SEEDS, "x", "2", "+", "=", "B", "cm", "kg", "%", "$5"]), max_size=12).map("".join)
)


@given(TEXT, TEXT)
@settings(max_examples=500, deadline=None)
def test_rules_never_raise_and_make_no_difference_between_the_two_sides(left, right):
    one, other = answers_match_by_rules(left, [right]), answers_match_by_rules(right, [left])
    assert one is other


@given(TEXT, TEXT)
@settings(max_examples=60, deadline=None)
def test_judging_never_raises_and_gives_the_same_verdict_twice(left, right):
    assert answers_match(left, [right]) is answers_match(left, [right])


@given(TEXT)
@settings(max_examples=300, deadline=None)
def test_an_answer_is_itself_whatever_it_is(text):
    assert all(judge(text, [text]) is bool(text.strip()) for judge in JUDGES.values())


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_whole_numbers_are_the_same_only_when_they_are(left, right):
    assert answers_match(f"{left:,}", [str(right)]) is (left == right)


def test_small_numbers_and_wrong_formats_need_no_second_process():
    judge = SymbolicJudge()
    for left in range(19):
        for right in range(19):
            assert answers_match(f"\n{left}\n", [str(right)], symbolic=judge) is (left == right)
    assert judge.counts == SymbolicCounts()


@pytest.mark.parametrize(
    "formula", ["9^{9^{9^{9^{x}}}}", "x^{99999}", "(x+1)^{12345}", "99999!", "9!!!", "7" * 80 + "x", "x+" * MAX_FORMULA_CHARS + "x"]
)
def test_what_only_a_hostile_answer_holds_is_not_asked_but_counted(formula):
    judge = SymbolicJudge()
    assert is_too_large(formula) and not judge.same(formula, "x")
    assert judge.counts == SymbolicCounts(cut_by_size=1)


SLOW = ("(a+b+c+d+e+f+g)^{97}(a-b)^{89}+\\int_0^x \\frac{t^{77}}{\\sin t+\\cos t+t^{53}}dt", "(g+f+e+d+c+b+a)^{97}(a-b)^{89}+1")


def test_a_comparison_that_does_not_end_is_cut_and_the_next_one_answered():
    pytest.importorskip("math_verify")
    judge = SymbolicJudge(seconds=0.5)
    assert judge.same("2x+1", "1+2x")
    start = time.perf_counter()
    assert not judge.same(*SLOW)
    assert time.perf_counter() - start < 6.0
    assert judge.same("3x+1", "1+3x")
    assert (judge.counts.same, judge.counts.cut_by_time) == (2, 1)
    judge.close()


def test_a_verdict_is_remembered_whichever_side_comes_first():
    pytest.importorskip("math_verify")
    judge = SymbolicJudge()
    assert [judge.same("5x+1", "1+5x"), judge.same("1+5x", "5x+1")] == [True, True]
    assert (judge.counts.same, judge.counts.remembered) == (1, 1)
    judge.close()


def test_a_verdict_that_was_cut_by_time_is_asked_again():
    """It depends on the machine's load; what is too large for anybody is not."""
    pytest.importorskip("math_verify")
    judge = SymbolicJudge(seconds=0.2)
    assert [judge.same(*SLOW), judge.same(*SLOW)] == [False, False]
    assert (judge.counts.cut_by_time, judge.counts.remembered) == (2, 0)
    assert [judge.same("9^{99999}", "x"), judge.same("9^{99999}", "x")] == [False, False]
    assert (judge.counts.cut_by_size, judge.counts.remembered) == (1, 1)
    judge.close()


def test_a_verdict_that_nobody_could_give_is_asked_again(monkeypatch):
    judge = SymbolicJudge()
    monkeypatch.setattr(judge, "_ask", lambda *_: b"")
    assert [judge.same("5x+1", "1+5x"), judge.same("5x+1", "1+5x")] == [False, False]
    assert (judge.counts.unavailable, judge.counts.remembered) == (2, 0)


def test_what_became_of_formulas_is_told_as_metrics():
    pytest.importorskip("math_verify")
    judge = SymbolicJudge()
    judge.same("5x+1", "1+5x")
    assert symbolic_metrics(judge) == {"symbolic/same": 1.0} | {
        f"symbolic/{name}": 0.0 for name in ("different", "failed", "cut_by_size", "cut_by_time", "unavailable", "remembered")
    }
    judge.close()


def test_a_worker_that_is_killed_is_replaced():
    pytest.importorskip("math_verify")
    judge = SymbolicJudge()
    assert judge.same("5x+1", "1+5x")
    judge._worker.kill()
    judge._worker.wait()
    judge.same("6x+1", "1+6x")
    assert judge.same("7x+1", "1+7x")
    judge.close()


def test_without_math_verify_formulas_are_judged_by_rules_and_counted(monkeypatch, tmp_path, caplog):
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    judge = SymbolicJudge()
    assert not answers_match("2y+1", ["1+2y"], symbolic=judge)
    assert not answers_match("2z+1", ["1+2z"], symbolic=judge)
    assert answers_match("7", ["7.0"], symbolic=judge)
    assert judge.counts == SymbolicCounts(unavailable=2)
    assert [record.message for record in caplog.records] == [
        "math-verify does not load here, so formulas are judged by rules alone; install math-verify to have them compared"
    ]


def test_no_worker_outlives_the_process_that_asked():
    pytest.importorskip("math_verify")
    code = (
        "import os, signal; from prism_trainer.rewards.symbolic import SHARED\n"
        "SHARED.same('2x+1', '1+2x'); print(SHARED._worker.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    for _ in range(100):
        if not _runs(pid):
            break
        time.sleep(0.1)
    assert not _runs(pid)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_more_parts_than_a_listing_may_have_are_one_text():
    assert parse_listing(", ".join("1" * 33)) is None
    assert parse_listing(", ".join("1" * 32)).kind == ","
