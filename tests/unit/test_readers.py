"""Data sets: what is read, and the sentence for what cannot be."""

import io
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prism_trainer.contract.job import DataSource
from prism_trainer.data.dataset import open_demonstrations, open_taught, open_verifiable
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
    source = _json(tmp_path, [{"messages": TURNS, "images": ["a.png"]}])
    (row,) = open_demonstrations([source])
    assert (row.prompt.id, row.prompt.question, row.prompt.images) == (f"{source.uri}:0", "How many?", (_png(),))
    assert (row.prompt.system, row.response) == (None, CAPTION + COT)


def test_rows_of_two_files_of_the_same_name_have_different_ids(tmp_path):
    sources = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        sources.append(_json(tmp_path / folder, [{"messages": TURNS, "images": ["a.png"]}] * 2))
    assert len({row.prompt.id for source in sources for row in open_demonstrations([source])}) == 4


def test_a_stage_two_row_is_a_taught_prompt(tmp_path):
    (row,) = open_taught([_parquet(tmp_path)])
    assert (row.prompt.question, row.prompt.system, row.references) == ("How many?", "be brief", ("7", "7.0"))
    assert row.teacher.answer.of(row.teacher.text) == "7"


def test_the_teachers_parts_will_do_where_the_whole_is_missing(tmp_path):
    (row,) = open_taught([_parquet(tmp_path, teacher_response=None)])
    assert row.teacher.text == "<caption>\nc\n</caption>\n<think>\nt\n</think>\n<answer>\n7\n</answer>"


def test_a_stage_three_row_is_a_verifiable_prompt(tmp_path):
    (row,) = open_verifiable([_parquet(tmp_path, teacher_caption=None, teacher_cot=None, teacher_response=None)])
    assert row.references == ("7", "7.0")


@pytest.mark.parametrize(
    ("equivalents", "references"),
    [(None, ("7",)), ("__EMPTY__", ("7",)), ("seven", ("7", "seven")), (["__EMPTY__"], ("7",)), ([7.0, " seven "], ("7", "7.0", "seven"))],
)
def test_equivalent_answers_are_a_list_or_one_text(tmp_path, equivalents, references):
    row = {"prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "7", "equivalent_answers": equivalents}}
    (prompt,) = open_verifiable([_json(tmp_path, [row])])
    assert prompt.references == references


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"reward_model": {"ground_truth": " "}}, r"column 'reward_model.ground_truth': found empty text"),
        ({"answer": ""}, r"column 'answer': found empty text"),
        ({"answer": float("nan")}, r"column 'answer': found float 'nan', expected text or a number"),
        ({"reward_model": "7"}, r"column 'reward_model': found str '7', expected an object with ground_truth"),
        ({"reward_model": {"ground_truth": ["7"]}}, r"column 'reward_model.ground_truth': found list .*, expected text or a number"),
        ({"answer": "7", "reward_model": {"equivalent_answers": 7}}, r"found int '7', expected a list of answers or one answer as text"),
        ({"answer": "7", "reward_model": {"equivalent_answers": [True]}}, r"found bool 'True', expected text or a number"),
    ],
)
def test_an_answer_that_cannot_be_compared_with_is_refused(tmp_path, columns, sentence):
    with pytest.raises(DataError, match=sentence):
        list(open_verifiable([_json(tmp_path, [{"prompt": [{"role": "user", "content": "?"}], **columns}])]))


@pytest.mark.parametrize(
    ("text", "images", "count"),
    [
        ("<image>\nHow many?", ["a.png"], 1),
        ("<image> <image>How many?", ["a.png", "a.png"], 2),
        ("How many?", ["a.png"], 1),
        ("How many?", None, 0),
        ("<image>How many?", "a.png", 1),
        ("<image>How many?", {"path": "a.png"}, 1),
    ],
)
def test_images_go_before_the_question(tmp_path, text, images, count):
    turns = [{"role": "user", "content": text}, TURNS[1]]
    (row,) = open_demonstrations([_json(tmp_path, [{"messages": turns, "images": images}])])
    assert (row.prompt.question, row.prompt.images) == ("How many?", (_png(),) * count)


@pytest.mark.parametrize(
    ("text", "columns", "sentence"),
    [
        (
            "<image>?",
            {"image": ["a.png"]},
            r"column 'images': found no such column, .*, expected 1: one for each <image> in the user's turn",
        ),
        ("<image>?", {"images": None}, r"column 'images': found 0, expected 1"),
        ("<image>?", {"images": ["a.png"] * 2}, r"column 'images': found 2, expected 1"),
        ("<image>?", {"images": 7}, r"column 'images': found int '7', expected a list of paths"),
        ("<image>?", {"images": [None]}, r"column 'images': image 'None' cannot be decoded"),
        ("Is <image> larger?", {"images": ["a.png"]}, r"column 'messages': found <image> after text in the user's turn"),
    ],
)
def test_a_row_that_would_be_learnt_blind_is_refused(tmp_path, text, columns, sentence):
    turns = [{"role": "user", "content": text}, TURNS[1]]
    with pytest.raises(DataError, match=sentence):
        list(open_demonstrations([_json(tmp_path, [{"messages": turns, **columns}])]))


def test_an_image_too_large_to_decode_safely_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(DataError, match=r"embedded image cannot be decoded .*decompression bomb"):
        list(open_taught([_parquet(tmp_path)]))


def _png_with_broken_chunk():
    """Two data chunks, the second with a name that no chunk has: Pillow raises a SyntaxError."""
    whole = _png()
    start = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[start : start + 4], "big")
    data = whole[start + 8 : start + 8 + length]
    first = (4).to_bytes(4, "big") + b"IDAT" + data[:4] + zlib.crc32(b"IDAT" + data[:4]).to_bytes(4, "big")
    return whole[:start] + first + (4).to_bytes(4, "big") + b"\x00\x00\x00\x00" + data[4:] + whole[start + 12 + length :]


def test_an_image_with_a_broken_chunk_is_a_sentence(tmp_path):
    images = [{"bytes": _png_with_broken_chunk(), "path": None}]
    with pytest.raises(DataError, match="embedded image cannot be decoded") as caught:
        list(open_taught([_parquet(tmp_path, images=images)]))
    assert isinstance(caught.value.__cause__, SyntaxError)


@pytest.mark.parametrize(
    ("changes", "read", "sentence"),
    [
        ({"teacher_response": "no tags"}, open_taught, r"row 0, column 'teacher_response': not <caption><think><answer>"),
        ({"teacher_response": None, "teacher_cot": None}, open_taught, r"column 'teacher_cot': found nothing, expected text"),
        ({"teacher_response": 7}, open_taught, r"column 'teacher_response': found int '7', expected text"),
        ({"teacher_response": "", "teacher_cot": "<think>x"}, open_taught, r"column 'teacher_caption \+ teacher_cot': not <caption>"),
        ({"images": [{"bytes": b"not an image", "path": None}]}, open_taught, r"column 'images': embedded image cannot be decoded"),
        ({"images": [{"bytes": _png()[:45], "path": None}]}, open_taught, r"column 'images': embedded image cannot be decoded"),
        ({"prompt": "How many?"}, open_taught, r"column 'prompt': found .*, expected a list of \{role, content\}"),
        ({"prompt": [{"role": "system", "content": "x"}]}, open_taught, r"column 'prompt': no user turn"),
        ({"prompt": [{"role": "bot", "content": "x"}]}, open_taught, r"found a turn of role 'bot'"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text"}]}]},
            open_taught,
            r"found content list .* of role 'user'; expected text",
        ),
        ({"reward_model": None}, open_verifiable, r"column 'reward_model': no ground_truth"),
    ],
)
def test_a_broken_row_is_named_with_file_row_and_column(tmp_path, changes, read, sentence):
    with pytest.raises(DataError, match=sentence):
        list(read([_parquet(tmp_path, **changes)]))


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
        list(open_demonstrations([DataSource(uri=str(tmp_path / "set.json"))]))


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (b"{", "row 1: not JSON"),
        (b"\xff", "row 1: not JSON: 'utf-8' codec"),
        (b"[" * 100_000, "row 1: not JSON"),
        (b"7", "row 1: found int '7'"),
    ],
    ids=["cut", "not utf-8", "nested too deep", "no object"],
)
def test_rows_of_a_jsonl_file_are_counted_without_blank_lines(tmp_path, last, sentence):
    row = json.dumps({"messages": [{"role": "user", "content": "café?"}, TURNS[1]]}, ensure_ascii=False)
    (tmp_path / "set.jsonl").write_bytes(b"\n" + row.encode() + b"\n\n" + last)
    rows = open_demonstrations([DataSource(uri=str(tmp_path / "set.jsonl"))], known=True)
    assert rows[0].prompt.id.endswith("set.jsonl:0")
    with pytest.raises(DataError, match=sentence):
        rows[1]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("gone.json", r"does not exist \(looked for /.*gone.json\)"), ("set.csv", "ends in '.csv', expected one of .json, .jsonl, .parquet")],
)
def test_a_file_that_is_not_there_or_not_known_is_a_sentence(tmp_path, name, sentence):
    (tmp_path / "set.csv").write_text("a,b")
    with pytest.raises(DataError, match=sentence):
        list(open_demonstrations([DataSource(uri=str(tmp_path / name))]))


def test_a_parquet_file_cut_short_is_a_sentence(tmp_path):
    source = _parquet(tmp_path)
    (tmp_path / "set.parquet").write_bytes((tmp_path / "set.parquet").read_bytes()[:-40])
    with pytest.raises(DataError, match="not a readable parquet file"):
        list(open_taught([source]))


def test_a_changed_file_has_another_digest(tmp_path):
    source = _json(tmp_path, [])
    before = digest_sources((source,))
    (tmp_path / "set.json").write_text("[ ]")
    assert before != digest_sources((source,))


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """A small .jsonl and a small .parquet file, their content and what reads them."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "a.png").write_bytes(_png())
    jsonl = DataSource(uri=str(folder / "set.jsonl"))
    (folder / "set.jsonl").write_text(f"{json.dumps({'messages': TURNS, 'images': ['a.png']})}\n" * 2, encoding="utf-8")
    parquet = _parquet(folder)
    return [(source, (folder / source.uri).read_bytes(), read) for source, read in ((jsonl, open_demonstrations), (parquet, open_taught))]


@pytest.mark.parametrize("number", [0, 1], ids=["jsonl", "parquet"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_gives_rows_or_a_sentence(whole_files, number, data):
    source, content, read = whole_files[number]
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = content[place] ^ data.draw(st.integers(1, 255))
    Path(source.uri).write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    try:
        assert len(list(read([source]))) >= 1
    except DataError as error:
        assert source.uri in str(error)


ASK = [{"role": "user", "content": "<image>\n?"}]


@pytest.mark.parametrize(
    ("read", "row", "sentence"),
    [
        (
            open_demonstrations,
            {"prompt": TURNS},
            r"column 'messages': found no such column, only prompt, expected a list of \{role, content\}",
        ),
        (open_demonstrations, {"messages": TURNS, "image": "a.png"}, "'images': found no such column, only image, messages, expected 1:"),
        (open_demonstrations, {"messages": TURNS, "images": []}, "column 'images': found 0, expected 1:"),
        (open_verifiable, {"prompt": "?", "answer": "7"}, r"column 'prompt': found str '\?', expected a list of \{role, content\}"),
        (
            open_verifiable,
            {"prompt": ASK, "images": "set.json", "answer": "7"},
            r"'set.json' cannot be decoded \(its content is no image\)",
        ),
        (open_verifiable, {"prompt": ASK, "images": "b.png", "answer": "7"}, r"'b.png' cannot be decoded \(there is no file .*/b.png\)"),
    ],
)
def test_a_set_of_another_shape_is_told_what_it_has(tmp_path, read, row, sentence):
    with pytest.raises(DataError, match=sentence):
        list(read([_json(tmp_path, [row])]))
