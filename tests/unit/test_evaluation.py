"""Numbers that an evaluation reports: marks, scores, intervals, tests and comparisons."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig, Judge
from prism_trainer.contract.results import EvaluationSample
from prism_trainer.data.rows import Prompt
from prism_trainer.evaluation.marking import Response, mark
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.resampling import EXACT_UP_TO, PERMUTATIONS, Resampling, interval, sign_flip_p_value
from prism_trainer.evaluation.summary import Answers, summarise
from prism_trainer.responses import parse_response


def mean_interval(values, confidence, seed):
    """Of a score that every unit counts for once."""
    data = np.asarray(values, dtype=np.float64)
    return interval(Resampling.of(len(data), seed).ratio(data, np.ones(len(data))), confidence)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).random(400)
    low, high = mean_interval(values.tolist(), 0.95, seed=1)
    half = 1.96 * values.std() / 20
    assert abs(low - (values.mean() - half)) < 0.004 and abs(high - (values.mean() + half)) < 0.004


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([1.0] * 50, 0.95, seed=0) == (1.0, 1.0)


def test_the_same_seed_gives_the_same_interval():
    assert mean_interval([0.0, 1.0] * 30, 0.9, 3) == mean_interval([0.0, 1.0] * 30, 0.9, 3)


def test_draws_without_any_unit_of_a_score_say_nothing_about_it():
    """One unit of fifty has the label: a third of the draws leave it out."""
    drawn = Resampling.of(50, 0).ratio(np.eye(50)[7], np.eye(50)[7])
    assert 0.3 < np.isnan(drawn).mean() < 0.45 and interval(drawn, 0.95) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.0] * 9, 1.0),
        ([1.0], 1.0),
        ([1.0] * 5, 2 / 2**5),
        ([1.0] * 5 + [0.0] * 100, 2 / 2**5),
        ([1.0, -1.0], 1.0),
        ([1.0] * 9 + [-1.0], 2 * (1 + 10) / 2**10),
    ],
)
def test_the_p_value_of_few_differences_is_counted_out(differences, p):
    assert sign_flip_p_value(np.array(differences), seed=0) == pytest.approx(p)


def test_the_p_value_of_many_differences_is_that_of_mcnemars_exact_test():
    """Of 40 prompts that differ 28 became right: twice the binomial tail."""
    from scipy.stats import binomtest

    differences = np.array([1.0] * 28 + [-1.0] * 12 + [0.0] * 200)
    assert sign_flip_p_value(differences, seed=0) == pytest.approx(binomtest(28, 40).pvalue, abs=0.006)


def test_a_p_value_is_never_zero():
    assert sign_flip_p_value(np.ones(10 * EXACT_UP_TO), seed=0) == 1 / (PERMUTATIONS + 1)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=EXACT_UP_TO))
def test_a_p_value_does_not_depend_on_which_checkpoint_comes_first(differences):
    values = np.array(differences, dtype=float)
    assert sign_flip_p_value(values, 0) == sign_flip_p_value(-values, 0) <= 1.0


PROBLEM = Problem(Prompt("t:0", "How many?", ()), ("7", "seven"), "t:0")
RIGHT = "<caption>c</caption><think>t</think><answer>7</answer>"
CONFIG = EvaluationConfig(seeds=(0, 1, 2))


def _sample(text, problem=PROBLEM, seed=0, is_complete=True):
    response = Response(text, parse_response(text) if is_complete else None, 12, was_cut=not is_complete)
    return mark("sft", "", seed, [problem], [response])[0]


def _problem(number):
    return replace(PROBLEM, prompt=replace(PROBLEM.prompt, id=f"t:{number}"), unit=f"t:{number}")


def _summary(*by_checkpoint, config=CONFIG, **task):
    stages = ("sft", "rlvr", "more")
    ref = CheckpointRef(stage="sft", uri="x")
    return summarise("b", [Answers(stage, ref, found) for stage, found in zip(stages, by_checkpoint, strict=False)], config, 0, **task)


def _answers(rights, seeds=(0, 1, 2)):
    """A sample for each prompt and seed; `rights` says by prompt whether it is right."""
    return [_sample(RIGHT if right else "no", _problem(number), seed) for seed in seeds for number, right in enumerate(rights)]


def test_a_response_that_was_cut_is_wrong_however_it_reads():
    whole, cut = _sample(RIGHT), _sample(RIGHT, is_complete=False)
    assert (whole.correct, whole.format_valid, whole.answer, whole.was_cut) == (True, True, "7", False)
    assert (cut.correct, cut.format_valid, cut.answer, cut.was_cut) == (False, False, None, True)
    (row,) = _summary([whole, _sample(RIGHT, _problem(1), is_complete=False)], config=EvaluationConfig(seeds=(0,)))
    assert (row.accuracy, row.cut_rate, row.mean_tokens) == (0.5, 0.5, 12)


def test_seeds_of_a_prompt_are_one_draw_of_the_bootstrap():
    """Ten prompts always right and ten always wrong: three equal seeds must not make the interval narrower than one."""
    rights = [number % 2 == 1 for number in range(20)]
    rows = [_summary(_answers(rights, seeds), config=EvaluationConfig(seeds=seeds))[0] for seeds in ((0,), (0, 1, 2))]
    assert [(row.accuracy, row.format_rate, row.num_prompts, row.num_seeds) for row in rows] == [(0.5, 0.5, 20, 1), (0.5, 0.5, 20, 3)]
    assert (rows[0].ci_low, rows[0].ci_high) == (rows[1].ci_low, rows[1].ci_high)


def test_prompts_about_one_problem_are_one_draw_of_the_bootstrap():
    """Five versions of each problem, all right or all wrong, are as uncertain as the problems are."""
    versions = [replace(_problem(f"{number}/{version}"), unit=f"u{number}") for number in range(20) for version in range(5)]
    texts = [RIGHT if problem.unit in {f"u{n}" for n in range(10)} else "no" for problem in versions]
    (row,) = _summary([_sample(text, problem) for text, problem in zip(texts, versions, strict=True)], config=EvaluationConfig(seeds=(0,)))
    (alone,) = _summary(_answers([True] * 10 + [False] * 10, (0,)), config=EvaluationConfig(seeds=(0,)))
    assert row.ci_high - row.ci_low == pytest.approx(alone.ci_high - alone.ci_low, abs=0.05)
    assert row.ci_high - row.ci_low > 0.35


def test_the_column_of_each_seed_is_told_too():
    samples = [sample for seed, rights in enumerate(([1, 1], [1, 0], [0, 0])) for sample in _answers(rights, (seed,))]
    assert _summary(samples)[0].seed_accuracy == (1.0, 0.5, 0.0)


def test_a_comparison_is_paired_where_intervals_overlap():
    """60 and 70 of 100, the second right wherever the first is: unpaired the intervals overlap, paired the difference is sure."""
    before, after = _summary(_answers([n < 60 for n in range(100)]), _answers([n < 70 for n in range(100)]))
    (found,) = after.compared
    assert before.compared == () and before.ci_high > after.ci_low
    assert (found.against, found.difference) == ("sft", pytest.approx(0.1))
    assert 0 < found.ci_low < 0.1 < found.ci_high and found.p_value == pytest.approx(2 / 2**10)


def test_every_checkpoint_is_compared_with_all_before_it():
    rows = _summary(*(_answers([True] * count + [False] * (9 - count)) for count in (3, 6, 5)))
    assert [[one.against for one in row.compared] for row in rows] == [[], ["sft"], ["sft", "rlvr"]]
    assert rows[2].compared[1].difference == pytest.approx(-1 / 9)


def test_what_the_judge_added_can_be_taken_off_again():
    samples = _answers([True, False], (0,))
    samples[1] = samples[1].model_copy(update={"judge": "right", "correct": True})
    config = EvaluationConfig(seeds=(0,), judge=Judge(model="j", base_url="http://j"))
    (row,) = _summary(samples, config=config)
    assert (row.accuracy, row.rule_accuracy) == (1.0, 0.5)
    assert _summary(samples, config=EvaluationConfig(seeds=(0,)))[0].rule_accuracy is None


def test_a_sample_survives_its_file():
    sample = _sample(RIGHT)
    assert EvaluationSample.model_validate_json(sample.model_dump_json(exclude_defaults=True)) == sample
