"""A data set of the wrong kind is named when a run is checked, not when its stage begins."""

import json
import sys

import pytest

from builders import make_run
from prism_operator.local.first_rows import ask_trainer, first_row_problems
from prism_operator.problems import format_path
from prism_trainer.curation.first_rows import first_row_problem

QUESTION = [{"role": "user", "content": "How many?"}]
TEACHER = {"teacher_caption": "two", "teacher_cot": "<think>I count</think><answer>2</answer>"}
ROWS = {
    "sft": {"messages": [*QUESTION, {"role": "assistant", "content": "two"}]},
    "taught": {"prompt": QUESTION, **TEACHER},
    "both": {"prompt": QUESTION, **TEACHER, "reward_model": {"ground_truth": "2"}},
    "verifiable": {"prompt": QUESTION, "reward_model": {"ground_truth": "2"}},
    "pairs": {"question": "How many?", **TEACHER, "student_caption": "one", "student_cot": "<think>I guess</think><answer>1</answer>"},
    "other": {"text": "two"},
}
"""By file."""


@pytest.fixture
def sets(tmp_path):
    for name, row in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n" + "no JSON\n")
    (tmp_path / "empty.jsonl").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("sft", "sft"), ("discriminator", "taught"), ("alignment", "taught"), ("discriminator", "pairs"), ("alignment", "pairs"),
        ("alignment", "both"), ("rlvr", "both"), ("rlvr", "verifiable"), ("evaluation", "verifiable"),
    ],
)  # fmt: skip
def test_a_set_that_its_stage_can_read_is_no_problem_and_only_its_first_row_is_read(sets, kind, name):
    assert first_row_problem(kind, str(sets / f"{name}.jsonl")) == ""


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("sft", "verifiable", "is one for rlvr or evaluation by its column 'reward_model'; a stage of kind sft reads messages"),
        ("rlvr", "sft", "is one for sft by its column 'messages'; a stage of kind rlvr reads reward_model or answer"),
        ("rlvr", "taught", "is one for discriminator or alignment by its column 'teacher_caption'"),
        ("alignment", "verifiable", "is one for rlvr or evaluation"),
        ("alignment", "other", "row 0, column 'prompt': found no such column, only text"),
        ("evaluation", "empty", "has no rows"),
        ("sft", "gone", "does not exist"),
    ],
)
def test_a_set_that_its_stage_cannot_read_is_a_sentence(sets, kind, name, words):
    assert words in first_row_problem(kind, str(sets / f"{name}.jsonl"))


def problems(run, folder):
    return {format_path(problem.path): problem.sentence for problem in first_row_problems(run.run(), folder, ask_trainer)}


def test_every_set_on_this_machine_is_looked_at_before_the_run_starts(sets):
    run = make_run()
    run.stage("sft", data=[{"uri": "sft.jsonl"}, {"uri": "taught.jsonl"}])
    run.stage("alignment", data=[{"uri": "s3://bucket/taught.jsonl"}, {"uri": "org/name"}], policy="base", discriminator="base")
    run.stage("rlvr", data=[{"uri": "sft.jsonl"}])
    found = problems(run, sets)
    assert list(found) == ["spec.stages[0].data[1].uri", "spec.stages[2].data[0].uri"]


def test_a_skipped_stage_reads_no_data(sets):
    run = make_run().stage("rlvr", data=[{"uri": "sft.jsonl"}], checkpoint={"uri": "done"})
    assert problems(run, sets) == {}


def test_a_python_that_cannot_read_data_refuses_nothing(sets, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert problems(make_run().stage("rlvr", data=[{"uri": "sft.jsonl"}]), sets) == {}
