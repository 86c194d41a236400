"""Rows by number: the same as read at once, whatever the file looks like and wherever its pieces are cut."""

import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_trainer.contract.job import DataSource
from prism_trainer.data import json_tables, parquet_table
from prism_trainer.data.dataset import Rows, open_taught, require_no_weights
from prism_trainer.data.sources import files_of, open_table
from prism_trainer.errors import DataError, StorageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def small_chunks(monkeypatch):
    """So that every value is cut somewhere."""
    monkeypatch.setattr(json_tables, "CHUNK_BYTES", 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1, "\t"]), st.booleans(), st.sampled_from(["", "\n", " \r\n\t"]))
def test_a_list_is_found_element_by_element(folder, values, indent, ascii_only, around):
    file = folder / "set.json"
    file.write_bytes((around + json.dumps(values, indent=indent, ensure_ascii=ascii_only) + around).encode())
    table = open_table(str(file))
    assert list(table.scan()) == [table[index] for index in range(len(table))] == values


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='[]{},:"\\ \n1-eItruN', max_size=24))
def test_what_json_refuses_is_refused_and_nothing_else(folder, text):
    file = folder / "any.json"
    file.write_text(text)
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        assert list(open_table(str(file)).scan()) == pytest.approx(whole, nan_ok=True)
    else:
        with pytest.raises(DataError, match=r"any.json"):
            list(Rows([DataSource(uri=str(file))], lambda row: row))


def test_a_row_without_an_end_is_given_up_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_tables, "MAX_ROW_BYTES", 100)
    for name, start in (("a.json", '[{"a": "'), ("a.jsonl", '{"a": "')):
        (tmp_path / name).write_text(start + "x" * 3_000_000)
        with pytest.raises(DataError, match=r"row 0: longer than .*; give images as paths, or write the set as .parquet"):
            open_table(str(tmp_path / name))


def test_a_broken_line_hides_none_of_the_others(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n\n{"a": 3}\n')
    first, second, third = open_table(str(tmp_path / "a.jsonl")).scan()
    assert (first, third) == ({"a": 1}, {"a": 3}) and "row 1: not JSON" in str(second)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40), st.integers(1, 7), st.randoms(use_true_random=False))
def test_parquet_rows_come_in_any_order(folder, sizes, group, random):
    rows = [{"number": number, "blob": random.randbytes(size)} for number, size in enumerate(sizes)]
    file = folder / "set.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_table, "BATCH_BYTES", 2000)
        table = open_table(str(file))
        order = random.sample(range(len(rows)), len(rows))
        assert [table[index] for index in order] == [rows[index] for index in order]
        assert list(table.scan()) == rows


def test_a_disk_without_room_for_the_copy_is_a_sentence(tmp_path, monkeypatch):
    pq.write_table(pa.Table.from_pylist([{"a": b"x" * 100_000}] * 20), tmp_path / "set.parquet")
    table = open_table(str(tmp_path / "set.parquet"))
    monkeypatch.setattr(parquet_table.tempfile, "TemporaryFile", lambda: Path("/dev/full").open("r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(StorageError, match="there is no room; make some, or set TMPDIR to a larger disk"):
        table[0]


WRITE = """
    import io, random, sys
    from PIL import Image
    from pathlib import Path
    from prism_trainer.data import writers
    from prism_trainer.data.rows import Prompt, VerifiablePrompt
    writers.GROUP_BYTES = writers.GROUP_ROWS = 10**12
    def row():
        image = io.BytesIO()
        Image.frombytes("RGB", (128, 128), random.randbytes(128 * 128 * 3)).save(image, "PNG", compress_level=0)
        return VerifiablePrompt(Prompt("", "?", (image.getvalue(),)), ("7",))
    for name, count in (("small", 100), ("large", 3000)):
        writers.write_verifiable(Path(sys.argv[1], f"{name}.parquet"), [row() for _ in range(count)])
"""
READ = """
    import re, sys
    from prism_trainer.contract.job import DataSource
    from prism_trainer.data.dataset import open_verifiable
    def peak(name):
        rows = open_verifiable([DataSource(uri=f"{sys.argv[1]}/{name}.parquet")])
        rows[len(rows) - 1], rows[0], rows[len(rows) // 2]
        with open("/proc/self/status") as status:  # ru_maxrss would be that of the test's own process, from before the exec
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) * 1024
    print(-peak("small") + peak("large"))
"""


def test_a_row_group_of_150_megabytes_is_never_in_memory(tmp_path):
    subprocess.run([sys.executable, "-c", textwrap.dedent(WRITE), tmp_path], check=True)
    assert (tmp_path / "large.parquet").stat().st_size > 140 * 2**20
    assert pq.ParquetFile(tmp_path / "large.parquet").num_row_groups == 1
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(READ), tmp_path], check=True, capture_output=True, text=True)
    assert int(found.stdout) < 50 * 2**20


def _lines(file, count, teacher="<caption>c</caption><think>t</think><answer>7</answer>"):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps({"question": f"{file.stem} {n}?", "teacher_response": teacher}) + "\n" for n in range(count)))
    return DataSource(uri=str(file))


def test_several_files_are_one_set_in_the_order_of_their_names(tmp_path):
    for name, count in (("b", 2), ("a", 3)):
        _lines(tmp_path / f"{name}.jsonl", count)
    for uri in (str(tmp_path), str(tmp_path / "*.jsonl")):
        rows = open_taught([DataSource(uri=uri)])
        assert [row.prompt.question for row in rows] == ["a 0?", "a 1?", "a 2?", "b 0?", "b 1?"]
        assert [rows.id(index) for index in range(5)] == [row.prompt.id for row in rows]
        assert (rows.sizes, [row.prompt.question for row in rows[3:]]) == ([5], ["b 0?", "b 1?"])


def test_a_folder_of_two_kinds_of_files_is_not_guessed_at(tmp_path):
    _lines(tmp_path / "a.jsonl", 1)
    (tmp_path / "info.json").write_text("{}")
    with pytest.raises(DataError, match=r"is a folder, expected files of one kind .*, found .json and .jsonl; name a file"):
        files_of(DataSource(uri=str(tmp_path)))


def test_sets_are_mixed_by_their_weights(tmp_path):
    sources = [_lines(tmp_path / f"{name}.jsonl", 50).model_copy(update={"weight": weight}) for name, weight in (("a", 3.0), ("b", 1.0))]
    rows = open_taught(sources)
    drawn = Counter(rows.set_of(index) for index in rows.order(0, "here", 4000))
    assert 0.72 < drawn[0] / 4000 < 0.78


def test_a_weight_where_every_row_is_used_once_is_refused():
    with pytest.raises(DataError, match=r"data set 'a.parquet' has weight 2.0, and stage 'evaluation' uses every row once; leave it out"):
        require_no_weights([DataSource(uri="a.parquet", weight=2)], "evaluation")


def test_a_broken_row_is_found_before_the_first_is_used(tmp_path):
    source = _lines(tmp_path / "a.jsonl", 300)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:299], '{"question": "?"}']))
    with pytest.raises(DataError, match=r"row 299, column 'teacher_caption'"):
        open_taught([source])
    assert len(open_taught([source], known=True)) == 300


def test_a_row_outside_is_an_index_error(tmp_path):
    rows = open_taught([_lines(tmp_path / "a.jsonl", 2)])
    with pytest.raises(IndexError, match="row 2 of 2"):
        rows[2]
    assert isinstance(rows, Rows) and rows[0:0] == []
