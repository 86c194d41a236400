"""The seven benchmarks read from small files of their published columns and layouts."""

import json
import sys
from dataclasses import replace

import psutil
import pyarrow
import pyarrow.parquet
import pytest

from benchmark_files import LAYOUT, NUM_PROMPTS, hallusionbench, mathverse, mathvista, png, wemath, write_benchmark
from prism_trainer.contract.configs import BenchmarkChoice
from prism_trainer.contract.results import EvaluationSample
from prism_trainer.errors import DataError, Stopped
from prism_trainer.evaluation.marking import Response, mark
from prism_trainer.evaluation.rules import chosen_letter, is_right
from prism_trainer.evaluation.sources import find_sources
from prism_trainer.evaluation.suite import ProblemSet
from prism_trainer.evaluation.tasks import TASKS
from prism_trainer.responses import parse_response


@pytest.fixture
def read(tmp_path):
    """The problems of a benchmark in its published layout, by id without the benchmark's name."""

    def read(name, **choice):
        uri = choice.pop("uri", None) or str(write_benchmark(name, tmp_path / name))
        sources = find_sources(BenchmarkChoice(name=name, uri=uri, **choice), TASKS[name])
        found = ProblemSet(name, sources, TASKS[name])
        return {identity.removeprefix(f"{name}:"): problem for identity, problem in zip(found.ids, found.problems, strict=True)}

    return read


@pytest.mark.parametrize("name", NUM_PROMPTS)
def test_the_published_layout_is_read_and_nothing_else_in_the_folder(name, read):
    problems = read(name)
    assert len(problems) == NUM_PROMPTS[name]
    assert all(problem.prompt.images and problem.references and problem.prompt.system is None for problem in problems.values())


@pytest.mark.parametrize("name", NUM_PROMPTS)
def test_the_right_answer_is_right_and_another_is_wrong(name, read):
    for problem in read(name).values():
        assert all(is_right(problem, reference) for reference in problem.references), problem
        assert not is_right(problem, "no such thing") and not is_right(problem, "")


@pytest.mark.parametrize("name", NUM_PROMPTS)
def test_no_prompt_contradicts_the_system_prompt(name, read):
    """The system prompt asks for a caption and reasoning; upstream's questions ask for a direct answer, or for steps."""
    for problem in read(name).values():
        text = problem.prompt.question.lower()
        assert not any(words in text for words in ("directly", "step by step", "<image", "\\boxed", "<answer>", "hint:", "single word"))


def test_mathvista_asks_for_what_the_answer_is(read):
    problems = read("mathvista")
    assert problems["1"].prompt.question == "How long is AB? (unit: m)\nAnswer with a number rounded to 1 decimal place."
    assert problems["2"].prompt.question.endswith("Choices:\nA. 3\nB. -5\nC. x^2\nAnswer with the letter of the right choice.")
    assert problems["3"].prompt.question.endswith("?\nAnswer with a whole number.")
    assert problems["2"].references == ("B", "-5")
    assert problems["1"].labels == {"task": "geometry problem solving", "type": "free form"}


@pytest.mark.parametrize(
    ("pid", "answer", "right"),
    [("1", "1.2", True), ("1", "1.24", True), ("1", "1.2 m", True), ("1", "1.3", False), ("1", "12", False), ("3", "4.0", True),
     ("3", "four", True), ("4", "[1,3]", True), ("4", "1", False), ("2", "B", True), ("2", "(B) -5", True), ("2", "-5", True),
     ("2", "B) 3", False), ("2", "C", False)],
)  # fmt: skip
def test_mathvista_is_judged_to_its_precision(read, pid, answer, right):
    assert is_right(read("mathvista")[pid], answer) is right


def test_mathverse_has_the_versions_of_a_problem_as_one_unit(read):
    problems = list(read("mathverse").values())
    assert {problem.unit for problem in problems} == {"mathverse:1", "mathverse:2"}
    assert [problem.labels["version"] for problem in problems[:5]] == [
        "Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only",
    ]  # fmt: skip


def test_mathverses_vision_only_has_its_question_in_the_image_and_its_choices_for_the_rules(read):
    seen, unseen = read("mathverse")["1"], read("mathverse")["5"]
    assert seen.prompt.question == "Find angle A.\nChoices:\nA. 60°\nB. 70°\nAnswer with the letter of the right choice."
    assert unseen.prompt.question == "Answer the question that stands in the image.\nAnswer with the letter of the right choice."
    assert is_right(unseen, "70°") and is_right(unseen, "B") and not is_right(unseen, "60°")
    assert "Find angle A." in unseen.question


def test_mathvision_runs_the_split_the_paper_ran_unless_told_otherwise(read):
    assert (len(read("mathvision")), len(read("mathvision", split="test"))) == (2, 1)
    with pytest.raises(DataError, match="'mathvision' has no split 'image'; take one of testmini, test"):
        read("mathvision", split="image")


def test_mmmu_reads_lists_written_as_text_and_several_right_answers(read):
    problems = read("mmmu")
    first, painter = problems["validation_Accounting_1"], problems["validation_Art_Theory_12"]
    assert first.options == ("$6", "O'Neill's", "<image 2>") and len(first.prompt.images) == 2
    assert first.prompt.question.startswith("What does image 1 show?\nChoices:\nA. $6\nB. O'Neill's\nC. image 2\n")
    assert is_right(painter, "Claude Monet") and is_right(painter, "Monet")
    assert painter.labels == {"discipline": "Art and Design", "subject": "Art_Theory"}


def test_mmmu_pro_asks_each_question_in_both_settings_and_counts_them_as_one_unit(read):
    standard, vision = read("mmmu-pro").values()
    assert (standard.labels["setting"], vision.labels["setting"]) == ("standard", "vision") and standard.unit == vision.unit
    assert len(standard.options) == len(vision.options) == 10 and "choice 9" not in vision.prompt.question
    assert is_right(vision, "choice 9") and is_right(vision, "J")


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [("B", ("1", "2"), "B"), ("(b)", ("1", "2"), "B"), ("Option B", ("1", "2"), "B"), ("B. 2", ("1", "2"), "B"), ("B: 1", ("1", "2"), None),
     ("2", ("1", "2"), "B"), ("3", ("1", "2"), None), ("C", ("1", "2"), None), ("A", ("B", "A"), "A"), ("x", ("x", "y"), "A"),
     ("\\frac{1}{2}", ("2", "0.5"), "B"), ("A or B", ("1", "2"), None), ("A) -x", ("-x", "x"), "A"), ("", ("1", ""), None),
     ("B", ("", ""), "B"), ("The answer is B.", ("1", "2"), "B"), ("5 cm", ("5 m", "5 cm"), "B")],
)  # fmt: skip
def test_a_choice_is_named_by_its_letter_or_its_text(answer, options, letter):
    assert chosen_letter(answer, options) == letter


def _answered(problems, wrong=()):
    """The samples of one seed; right but for the problems named in `wrong`."""
    texts = [
        f"<caption>c</caption><think>t</think><answer>{'?' if name in wrong else p.references[0]}</answer>" for name, p in problems.items()
    ]
    responses = [Response(text, parse_response(text), 1, False) for text in texts]
    return mark("sft", "b", 0, list(problems.values()), responses)


def _by_unit(samples: list[EvaluationSample]):
    units = {}
    for sample in samples:
        units.setdefault(sample.unit, []).append(sample)
    return units


@pytest.mark.parametrize(
    ("wrong", "strict", "loose", "named"),
    [
        ((), 1.0, 1.0, {"complete mastery, strict", "complete mastery, loose"}),
        (("multi",), 0.5, 0.5, {"inadequate generalization"}),
        (("1", "multi"), 0.0, 0.0, {"insufficient knowledge"}),
        (("1",), 0.0, 1.0, {"rote memorization, strict", "complete mastery, loose"}),
        (("1", "2"), 0.0, 0.0, {"rote memorization, strict", "rote memorization, loose"}),
    ],
    ids=["mastered", "cannot compose", "lacks a step", "right without a step", "right without any step"],
)
def test_wemath_says_why_a_composite_problem_is_right_or_wrong(read, wrong, strict, loose, named):
    problems = {name: problem for name, problem in read("wemath").items() if name.endswith("2steps_7")}
    (samples,) = _by_unit(_answered(problems, [f"2steps_{key}:2steps_7" for key in wrong])).values()
    found = TASKS["wemath"].scores(samples)
    assert (found["score, strict"], found["score, loose"]) == ((strict, 1.0), (loose, 1.0))
    assert {name for name, (count, _) in found.items() if count and "score" not in name and "steps/" not in name} - {"accuracy"} == named


def test_wemaths_composite_problems_of_two_and_three_steps_are_units(read):
    units = _by_unit(_answered(read("wemath")))
    assert {unit: len(samples) for unit, samples in units.items()} == {"wemath:2steps:2steps_7": 3, "wemath:3steps:3steps_1": 4}
    (alone,) = _by_unit(_answered({"x": next(iter(read("wemath").values()))})).values()
    assert set(TASKS["wemath"].scores(alone)) == {"accuracy", "steps/1"}


def test_hallusionbench_counts_questions_figures_and_questions_over_figures(read):
    problems = read("hallusionbench")
    (samples,) = _by_unit(_answered(problems, ["VD:illusion:3:1:1"])).values()
    found = TASKS["hallusionbench"].scores(samples)
    assert (found["aAcc"], found["fAcc"], found["qAcc"]) == ((3.0, 4.0), (1.0, 2.0), (1.0, 2.0))
    assert is_right(problems["VD:illusion:3:0:0"], "Yes, it is longer.") and not is_right(problems["VD:illusion:3:0:0"], "no")


def test_a_folder_may_hold_the_files_themselves_or_json_lines(tmp_path, read):
    flat = tmp_path / "flat"
    flat.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(mathvista()), flat / "testmini-0.parquet")
    assert len(read("mathvista", uri=str(flat))) == len(read("mathvista", uri=str(flat / "testmini-0.parquet"))) == 4
    lines = tmp_path / "lines"
    (lines / "images").mkdir(parents=True)
    (lines / "images/1.png").write_bytes(png())
    rows = [{**row, "decoded_image": "images/1.png"} for row in mathvista()]
    (lines / "testmini-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read("mathvista", uri=str(lines))) == 4


@pytest.mark.parametrize(
    ("name", "rows", "column", "value", "sentence"),
    [
        ("mathvista", mathvista, "decoded_image", {"bytes": b"no image"}, "row 1, column 'decoded_image': the image cannot be decoded"),
        ("mathvista", mathvista, "decoded_image", None, "row 1, column 'decoded_image': found 0 images, expected at least 1"),
        ("mathvista", mathvista, "answer", "7", "row 1, column 'answer': found '7', expected one of the choices"),
        ("mathvista", mathvista, "question", "", "row 1, column 'question': found nothing, expected text"),
        ("mathvista", mathvista, "pid", "1", "two problems 'mathvista:1'"),
        ("wemath", wemath, "key", "4steps_1", "row 1, column 'key': found '4steps_1', expected one such as '2steps_1'"),
        ("hallusionbench", hallusionbench, "gt_answer", "maybe", "row 1, column 'gt_answer': found 'maybe', expected 0 "),
        ("mathverse", mathverse, "problem_version", None, "row 1, column 'problem_version': found nothing"),
    ],
)
def test_a_row_that_does_not_fit_is_named_before_anything_is_drawn(tmp_path, read, name, rows, column, value, sentence):
    broken = rows()
    broken[1][column] = value
    file = tmp_path / "broken.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(broken), file)
    with pytest.raises(DataError, match=sentence):
        read(name, uri=str(file))


def test_a_folder_without_the_files_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"no file of split 'testmini' in .*looked for data/testmini-\*\.parquet.*lay the folder out as AI4Math"
    ):
        find_sources(BenchmarkChoice(name="mathvista", uri=str(tmp_path)), TASKS["mathvista"])


HUB = """import sys; from pathlib import Path
folder = Path({folder!r}); (folder / 'asked').write_text('|'.join(sys.argv[2:])); print('noise'); print(folder)"""


def test_without_a_folder_the_public_data_set_is_asked_of_the_hub(tmp_path):
    write_benchmark("mmmu-pro", tmp_path)
    command = (sys.executable, "-c", HUB.format(folder=str(tmp_path)))
    sources = find_sources(BenchmarkChoice(name="mmmu-pro"), TASKS["mmmu-pro"], command=command)
    assert (tmp_path / "asked").read_text() == "MMMU/MMMU_Pro|||standard (10 options)/test-*.parquet|vision/test-*.parquet"
    assert len(sources) == 2
    find_sources(BenchmarkChoice(name="mmmu-pro", uri="hf://datasets/me/copy", revision="v1"), TASKS["mmmu-pro"], command=command)
    assert (tmp_path / "asked").read_text().startswith("me/copy|v1|")


def test_a_stage_that_waits_for_the_hub_can_be_stopped_and_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr("prism_trainer.hub.fetching.LOOK_SECONDS", 0.1)
    hub = f"import os, time; from pathlib import Path; Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)"

    def stop():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise Stopped(None)

    with pytest.raises(Stopped):
        find_sources(BenchmarkChoice(name="mathvista"), TASKS["mathvista"], stop, (sys.executable, "-c", hub))
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_the_layouts_cover_every_benchmark_of_the_paper():
    assert set(LAYOUT) == set(TASKS) and len(TASKS) == 7
    assert {replace(task).column for task in TASKS.values()} == {"accuracy", "aAcc"}
