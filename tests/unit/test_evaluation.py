"""Numbers that an evaluation reports."""

from dataclasses import replace

import numpy as np

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.data.rows import Prompt, VerifiablePrompt
from prism_trainer.responses import parse_response
from prism_trainer.stages.evaluation import bootstrap_interval, judge, summarise


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(values.tolist(), 0.95, seed=1)
    half = 1.96 * values.std() / 20
    assert abs(low - (values.mean() - half)) < 0.004 and abs(high - (values.mean() + half)) < 0.004


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap_interval([1.0] * 50, 0.95, seed=0) == (1.0, 1.0)


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap_interval([0.0, 1.0] * 30, 0.9, 3) == bootstrap_interval([0.0, 1.0] * 30, 0.9, 3)


PROMPT = VerifiablePrompt(Prompt("t:0", "How many?", ()), ("7", "seven"))
RIGHT = "<caption>c</caption><think>t</think><answer>7</answer>"


def _sample(text, prompt=PROMPT, seed=0, is_complete=True):
    return judge("sft", prompt, seed, text, parse_response(text) if is_complete else None, num_tokens=12)


def test_a_response_that_was_cut_is_wrong_however_it_reads():
    whole, cut = _sample(RIGHT), _sample(RIGHT, is_complete=False)
    assert (whole.correct, whole.format_valid, whole.answer) == (True, True, "7")
    assert (cut.correct, cut.format_valid, cut.answer) == (False, False, None)


def test_seeds_of_a_prompt_are_one_draw_of_the_bootstrap():
    """Ten prompts always right and ten always wrong: three equal seeds must not make the interval narrower than one."""
    prompts = [replace(PROMPT, prompt=replace(PROMPT.prompt, id=f"t:{number}")) for number in range(20)]
    texts = [RIGHT if number % 2 else "no" for number in range(20)]
    rows = []
    for seeds in ((0,), (0, 1, 2)):
        samples = [_sample(text, prompt, seed) for seed in seeds for prompt, text in zip(prompts, texts, strict=True)]
        rows.append(summarise("sft", CheckpointRef(stage="sft", uri="x"), samples, EvaluationConfig(seeds=seeds), 0))
    assert [(row.accuracy, row.format_rate, row.num_prompts, row.num_seeds) for row in rows] == [(0.5, 0.5, 20, 1), (0.5, 0.5, 20, 3)]
    assert (rows[0].ci_low, rows[0].ci_high) == (rows[1].ci_low, rows[1].ci_high)
