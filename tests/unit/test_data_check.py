"""`prism data check`: what it prints and how it ends."""

import io
import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from prism_operator.cli import app
from prism_trainer.contract.job import PRISM_SYSTEM_PROMPT
from prism_trainer.curation.__main__ import main
from prism_trainer.curation.check import quantiles

GOOD = "<caption>c</caption><think>t</think><answer>7</answer>"


@pytest.fixture
def folder(tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (64, 32)).save(image, "PNG")
    (tmp_path / "a.png").write_bytes(image.getvalue())
    return tmp_path


def _write(folder, rows, name="set.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def _turns(answer, system=None):
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": "<image>\nHow many?\n"}, {"role": "assistant", "content": answer}]


def test_a_sound_set_is_described_and_the_exit_code_is_0(folder, capsys):
    rows = [{"messages": _turns(answer, system), "images": ["a.png"]} for answer, system in ((GOOD, None), ("7", PRISM_SYSTEM_PROMPT))]
    assert main(["check", _write(folder, rows)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("set.jsonl: sharegpt, for sft; 2 rows, 0 broken")
    table = {line.rsplit(maxsplit=4)[0].strip(): line.split()[-4:] for line in lines[2:] if "rows" not in line and "row " not in line}
    assert (table["image width, pixels"], table["image height, pixels"]) == (["64"] * 4, ["32"] * 4)
    assert (table["images"], table["question, characters"], table["teacher's answer, characters"]) == (["1"] * 4, ["9"] * 4, ["1"] * 4)
    assert "  1 row with PRISM's system prompt" in lines
    assert "  1 row with a response that is not <caption><think><answer>: sft learns it as it is" in lines


def test_every_broken_row_is_named_and_the_exit_code_is_1(folder, capsys):
    rows = [{"messages": _turns(GOOD), "images": [image]} for image in ("a.png", "gone.png", "a.png")]
    file = _write(folder, [*rows, {"messages": []}])
    (folder / "set.jsonl").write_text((folder / "set.jsonl").read_text() + "{\n")
    assert main(["check", file]) == 1
    output = capsys.readouterr().out
    assert "5 rows, 3 broken" in output
    for sentence in ("row 1, column 'images': image 'gone.png'", "row 3, column 'messages': no user turn", "row 4: not JSON"):
        assert f"data set '{file}', {sentence}" in output


def test_more_broken_rows_than_are_shown_are_counted(folder, capsys):
    file = _write(folder, [{"messages": []}] * 5)
    assert main(["check", file, "--errors", "2"]) == 1
    output = capsys.readouterr().out
    assert output.count("no user turn") == 2 and "and 3 more broken rows" in output


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"messages": _turns(GOOD), "images": ["a.png"]}, "sharegpt"),
        ({"question": "?", "image": "a.png", "teacher_response": GOOD, "student_response": GOOD}, "pairs"),
        ({"question": "?", "image": "a.png", "teacher_response": GOOD}, "stage-2"),
        ({"prompt": _turns(GOOD)[:1], "images": ["a.png"], "reward_model": {"ground_truth": "7"}}, "stage-3"),
    ],
)
def test_the_first_row_tells_the_format(folder, capsys, columns, name):
    assert main(["check", "--json", _write(folder, [columns])]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["rows"], found["lengths"]["image width, pixels"]["max"]) == (name, 1, 64)


def test_a_format_that_is_asked_for_is_held_against_every_row(folder, capsys):
    file = _write(folder, [{"question": "?", "image": "a.png", "teacher_response": GOOD}])
    assert main(["check", "--format", "pairs", file]) == 1
    assert "row 0, column 'student_caption': found nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.json", None, "does not exist"),
        ("a.jsonl", "", "has no rows"),
        ("a.json", "[{},", "is not JSON"),
        ("a.txt", "", "ends in '.txt'"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_a_sentence(tmp_path, capsys, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["check", str(tmp_path / name)]) == 1
    assert sentence in capsys.readouterr().out


def test_the_command_line_hands_arguments_and_exit_code_through(folder):
    file = _write(folder, [{"messages": []}])
    found = subprocess.run([sys.executable, "-m", "prism_operator", "data", "check", "--json", file], capture_output=True, text=True)
    assert (found.returncode, json.loads(found.stdout)["broken"]) == (1, 1)


@pytest.mark.parametrize("command", ["check", "filter", "pairs"])
def test_every_command_explains_its_options(command, capfd):
    assert CliRunner().invoke(app, ["data", command, "--help"]).exit_code == 0
    assert f"usage: prism data {command}" in capfd.readouterr().out


def test_quantiles_are_of_what_is_there():
    assert quantiles([5]) == (5, 5, 5, 5)
    assert quantiles(range(1, 101)) == (1, 50, 95, 100)
