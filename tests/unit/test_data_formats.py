"""The four formats: what is written reads back, and a byte that is not as it was gives the same rows, other rows, or a sentence."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prism_trainer.contract.job import DataSource
from prism_trainer.data.dataset import open_demonstrations, open_taught, open_verifiable
from prism_trainer.data.formats import FORMATS, format_of
from prism_trainer.data.rows import Demonstration, Prompt, TaughtPrompt, VerifiablePrompt
from prism_trainer.data.sources import scan_file
from prism_trainer.data.writers import write_demonstrations, write_pairs, write_taught, write_verifiable
from prism_trainer.errors import DataError
from prism_trainer.responses import TAGS, parse_response


def _image(color, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, kind)
    return buffer.getvalue()


IMAGES = st.lists(st.sampled_from([_image("red"), _image("blue"), _image("red", "JPEG"), _image("red", "WEBP")]), max_size=3).map(tuple)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>\0"), min_size=1, max_size=20).map(str.strip).filter(bool)
ANSWERS = TEXT.filter(lambda text: text != "__EMPTY__")
REFERENCES = st.lists(ANSWERS, max_size=3).map(tuple)
PROMPTS = st.builds(Prompt, st.just(""), TEXT, IMAGES, st.none() | TEXT)
RESPONSES = st.builds("<caption>{}</caption>{}<think>{}</think> <answer>{}</answer>".format, TEXT, st.sampled_from(["", "\n"]), TEXT, TEXT)
PARSED = RESPONSES.map(parse_response)
SETS = {
    "curated.json": (st.builds(Demonstration, PROMPTS, RESPONSES | TEXT), write_demonstrations, open_demonstrations),
    "curated.jsonl": (st.builds(Demonstration, PROMPTS, RESPONSES | TEXT), write_demonstrations, open_demonstrations),
    "taught.parquet": (st.builds(TaughtPrompt, PROMPTS, PARSED, REFERENCES), write_taught, open_taught),
    "verifiable.parquet": (
        st.builds(VerifiablePrompt, PROMPTS, REFERENCES.filter(bool), st.sampled_from(["mm_gad", "math-77k"])),
        write_verifiable,
        open_verifiable,
    ),
    "pairs.jsonl": (
        st.builds(TaughtPrompt, PROMPTS.map(lambda prompt: replace(prompt, system=None)), PARSED, REFERENCES, PARSED),
        write_pairs,
        open_taught,
    ),
}


def _nameless(rows):
    return [replace(row, prompt=replace(row.prompt, id="")) for row in rows]


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_reads_back_as_it_was(tmp_path, name, data):
    rows, write, read = SETS[name]
    given_rows = data.draw(st.lists(rows, min_size=1, max_size=4))
    assert write(tmp_path / name, given_rows) == len(given_rows)
    source = DataSource(uri=str(tmp_path / name))
    assert _nameless(read([source])) == given_rows
    first = next(scan_file(source.uri))
    assert FORMATS[format_of(name, first.columns).name].read(first).prompt.id == first.id


@pytest.fixture(scope="module")
def whole_sets(tmp_path_factory):
    """A file of each format, its content and its rows."""
    folder = tmp_path_factory.mktemp("whole")
    prompt = Prompt("", "How many?", (_image("red"),), None)
    parsed = parse_response("<caption>c</caption><think>t</think><answer>7</answer>")
    values = {
        Demonstration: Demonstration(prompt, parsed.text),
        TaughtPrompt: TaughtPrompt(prompt, parsed, ("7",), parsed),
        VerifiablePrompt: VerifiablePrompt(prompt, ("7", "seven"), "mm_gad"),
    }
    kinds = {"curated": Demonstration, "taught": TaughtPrompt, "pairs": TaughtPrompt, "verifiable": VerifiablePrompt}
    for name, (_, write, _) in SETS.items():
        write(folder / name, [values[kinds[name.split(".")[0]]]] * 2)
    return {name: (folder / name, (folder / name).read_bytes()) for name in SETS}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SETS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_byte_that_is_changed_gives_rows_or_a_sentence(whole_sets, name, data):
    file, content = whole_sets[name]
    place = data.draw(st.integers(0, len(content) - 1))
    file.write_bytes(content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :])
    try:
        assert 1 <= len(list(SETS[name][2]([DataSource(uri=str(file))]))) <= 2
    except DataError as error:
        assert name in str(error)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["taught.parquet", "verifiable.parquet"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_byte_that_is_changed_in_our_parquet_before_its_footer_gives_the_same_rows_or_a_sentence(whole_sets, name, data):
    file, content = whole_sets[name]
    read, source = SETS[name][2], DataSource(uri=str(file))
    file.write_bytes(content)
    before = list(read([source]))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    place = data.draw(st.integers(4, footer - 1))
    file.write_bytes(content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :])
    try:
        assert list(read([source])) == before
    except DataError as error:
        assert name in str(error)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SETS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_gives_the_first_rows_or_a_sentence(whole_sets, name, data):
    file, content = whole_sets[name]
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        assert 1 <= len(list(SETS[name][2]([DataSource(uri=str(file))]))) <= 2
    except DataError as error:
        assert name in str(error)


def test_images_are_written_once_beside_the_set_under_a_name_of_their_content(tmp_path):
    rows = [Demonstration(Prompt("", f"{n}?", (_image("red"), _image("blue", "JPEG"))), "7") for n in range(3)]
    write_demonstrations(tmp_path / "set.json", rows)
    paths = json.loads((tmp_path / "set.json").read_text())[0]["images"]
    assert [Path(path).suffix for path in paths] == [".png", ".jpeg"]
    assert sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "images").iterdir()) == sorted(paths)


def test_nothing_appears_under_the_name_before_it_is_whole(tmp_path):
    def rows():
        yield VerifiablePrompt(Prompt("", "?", ()), ("7",))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_verifiable(tmp_path / "set.parquet", rows())
    assert not (tmp_path / "set.parquet").exists()


# -- teacher columns with tags and without ----------------------------------------------------------------------------------------------


def _taught(tmp_path, **columns):
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": "How many?", "answer": "7", **columns}))
    (row,) = open_taught([DataSource(uri=str(tmp_path / "set.jsonl"))])
    return row.teacher


def _bare(text):
    for tag in TAGS:
        text = text.replace(tag, "")
    return text.strip()


@pytest.mark.parametrize("cot", ["<think>\nadd them\n</think>\n<answer>\n7\n</answer>", "<think>add\n\nthem</think><answer>7</answer>"])
@pytest.mark.parametrize("caption", ["<caption>\n- a\n- b\n</caption>", "<caption>- a</caption>"])
def test_teacher_columns_with_tags_and_without_give_the_same_spans(tmp_path, caption, cot):
    bare_cot = _bare(cot.replace("</think><", "</think>\n<"))
    found = [_taught(tmp_path, teacher_caption=one, teacher_cot=other) for one in (caption, _bare(caption)) for other in (cot, bare_cot)]
    assert found == [found[0]] * 4
    assert found[0].answer.of(found[0].text).strip() == "7" and found[0].caption_block.of(found[0].text).startswith("<caption>")


@pytest.mark.parametrize(
    ("cot", "think", "answer"),
    [
        ("3 plus 4 gives\n7", "3 plus 4 gives", "7"),
        ("3 plus 4", "3 plus 4", "7"),
        ("the larger is 17", "the larger is 17", "7"),
    ],
    ids=["the answer at its end", "no answer", "another number that ends alike"],
)
def test_a_cot_without_tags_is_reasoning_with_the_answer_after_it(tmp_path, cot, think, answer):
    teacher = _taught(tmp_path, teacher_caption="c", teacher_cot=cot)
    assert (teacher.think.of(teacher.text).strip(), teacher.answer.of(teacher.text).strip()) == (think, answer)


def test_a_whole_response_in_the_right_format_stays_as_it_is(tmp_path):
    text = "<caption>c</caption> <think>t</think>  <answer>7</answer>"
    assert _taught(tmp_path, teacher_response=text, teacher_caption="c", teacher_cot="t\n7").text == text


def test_a_whole_without_tags_must_say_what_its_parts_say(tmp_path):
    columns = {"teacher_caption": "- a", "teacher_cot": "t\n7"}
    assert _taught(tmp_path, teacher_response="- a\n\nt 7", **columns) == _taught(tmp_path, **columns)
    with pytest.raises(DataError, match=r"column 'teacher_response': not <caption><think><answer> once each"):
        _taught(tmp_path, teacher_response="- b\n\nt 7", **columns)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"teacher_caption": "<caption>c", "teacher_cot": "t"}, "teacher_caption \\+ teacher_cot': not <caption>"),
        ({"teacher_caption": "c", "teacher_cot": "<think>t</think>"}, "teacher_caption \\+ teacher_cot': not <caption>"),
        ({"teacher_caption": "c", "teacher_cot": "t", "answer": None}, "nor text without any tags beside an answer"),
    ],
)
def test_parts_that_make_no_response_are_refused(tmp_path, columns, sentence):
    with pytest.raises(DataError, match=sentence):
        _taught(tmp_path, **columns)


def test_columns_of_no_known_format_are_named():
    with pytest.raises(DataError, match=r"has the columns text, url, expected one of messages \(sharegpt\); student_caption or"):
        format_of("set.jsonl", {"url": "", "text": ""})
