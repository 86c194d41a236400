"""Data sets: what is read, and the sentence for what cannot be."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prism_trainer.contract.job import DataSource
from prism_trainer.data.readers import read_demonstrations, read_taught, read_verifiable
from prism_trainer.data.sources import digest_sources
from prism_trainer.errors import DataError

CAPTION, COT = "<caption>c</caption>", "<think>t</think><answer>7</answer>"


def _png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(tmp_path, **changes):
    row = {
        "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "<image>\nHow many?\n"}],
        "images": [{"bytes": _png(), "path": None}],
        "teacher_caption": CAPTION,
        "teacher_cot": COT,
        "teacher_response": f"{CAPTION}\n{COT}",
        "reward_model": {"ground_truth": "7", "style": "rule", "equivalent_answers": ["7.0", "__EMPTY__"]},
        **changes,
    }
    file = tmp_path / "set.parquet"
    pq.write_table(pa.Table.from_pylist([{key: value for key, value in row.items() if value is not None}]), file)
    return DataSource(uri=str(file))


def _json(tmp_path, rows):
    (tmp_path / "a.png").write_bytes(_png())
    (tmp_path / "set.json").write_text(json.dumps(rows))
    return DataSource(uri=str(tmp_path / "set.json"))


TURNS = [{"role": "user", "content": "<image>\nHow many?\n"}, {"role": "assistant", "content": f" {CAPTION}{COT} "}]


def test_a_sharegpt_row_is_a_demonstration(tmp_path):
    (row,) = read_demonstrations(_json(tmp_path, [{"messages": TURNS, "images": ["a.png"]}]))
    assert (row.prompt.id, row.prompt.question, row.prompt.images, row.prompt.system) == ("set.json:0", "How many?", (_png(),), None)
    assert row.response == CAPTION + COT


def test_a_stage_two_row_is_a_taught_prompt(tmp_path):
    (row,) = read_taught(_parquet(tmp_path))
    assert (row.prompt.question, row.prompt.system, row.references) == ("How many?", "be brief", ("7", "7.0"))
    assert row.teacher.answer.of(row.teacher.text) == "7"


def test_the_teachers_parts_will_do_where_the_whole_is_missing(tmp_path):
    (row,) = read_taught(_parquet(tmp_path, teacher_response=None))
    assert row.teacher.text == f"{CAPTION}\n{COT}"


def test_a_stage_three_row_is_a_verifiable_prompt(tmp_path):
    (row,) = read_verifiable(_parquet(tmp_path, teacher_caption=None, teacher_cot=None, teacher_response=None))
    assert row.references == ("7", "7.0")


@pytest.mark.parametrize(
    ("changes", "read", "sentence"),
    [
        ({"teacher_response": "no tags"}, read_taught, r"row 0, column 'teacher_response': not <caption><think><answer>"),
        ({"teacher_response": None, "teacher_cot": None}, read_taught, r"column 'teacher_cot': found nothing, expected text"),
        ({"images": [{"bytes": b"not an image", "path": None}]}, read_taught, r"column 'images': embedded image cannot be decoded"),
        ({"images": [{"bytes": _png()[:45], "path": None}]}, read_taught, r"column 'images': embedded image cannot be decoded"),
        ({"prompt": "How many?"}, read_taught, r"column 'prompt': expected a list of \{role, content\}"),
        ({"prompt": [{"role": "system", "content": "x"}]}, read_taught, r"column 'prompt': no user turn"),
        ({"prompt": [{"role": "bot", "content": "x"}]}, read_taught, r"found a turn of role 'bot'"),
        ({"reward_model": None}, read_verifiable, r"column 'reward_model': no ground_truth"),
    ],
)
def test_a_broken_row_is_named_with_file_row_and_column(tmp_path, changes, read, sentence):
    with pytest.raises(DataError, match=sentence):
        list(read(_parquet(tmp_path, **changes)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "expected a list of objects"),
        ("[1]", "row 0: found int '1', expected an object"),
        ("[]", "has no rows"),
        ("[", "is not JSON"),
        (json.dumps([{"messages": TURNS, "images": ["gone.png"]}]), "image 'gone.png' cannot be decoded"),
        (json.dumps([{"messages": TURNS[:1]}]), "no assistant turn to learn from"),
        (json.dumps([{"messages": TURNS * 2}]), "two turns of role 'user'"),
    ],
)
def test_a_broken_json_file_is_a_sentence(tmp_path, content, sentence):
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(DataError, match=sentence):
        list(read_demonstrations(DataSource(uri=str(tmp_path / "set.json"))))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("gone.json", r"does not exist \(looked for /.*gone.json\)"), ("set.csv", "ends in '.csv', expected one of .json, .jsonl, .parquet")],
)
def test_a_file_that_is_not_there_or_not_known_is_a_sentence(tmp_path, name, sentence):
    (tmp_path / "set.csv").write_text("a,b")
    with pytest.raises(DataError, match=sentence):
        list(read_demonstrations(DataSource(uri=str(tmp_path / name))))


def test_a_parquet_file_cut_short_is_a_sentence(tmp_path):
    source = _parquet(tmp_path)
    (tmp_path / "set.parquet").write_bytes((tmp_path / "set.parquet").read_bytes()[:-40])
    with pytest.raises(DataError, match="not a readable parquet file"):
        list(read_taught(source))


def test_a_changed_file_has_another_digest(tmp_path):
    source = _json(tmp_path, [])
    before = digest_sources((source,))
    (tmp_path / "set.json").write_text("[ ]")
    assert before != digest_sources((source,))
