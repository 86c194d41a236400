"""Answers on disk: what an attempt finds of those before it, whatever a kill left of the file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_trainer.contract.results import EvaluationSample
from prism_trainer.errors import StorageError
from prism_trainer.evaluation.record import SampleRecord


def sample(number, **fields):
    given = {"stage": "sft", "benchmark": "mmmu", "prompt_id": f"p{number}", "seed": 0, "question": "q", "response": f"wörds {number}"}
    marks = {"reference": "7", "answer": "7", "correct": True, "format_valid": True, "num_tokens": number}
    return EvaluationSample(**{**given, **marks, **fields})


def open_record(folder, attempt=1, identity="content", resumed=None):
    return SampleRecord.open(folder / f"attempt-{attempt}", identity, resumed)


def saved(record, folder):
    folder.mkdir(exist_ok=True)
    record.save(folder, with_head=False)
    return (folder / "samples.jsonl").read_bytes()


def test_what_was_added_is_there_for_the_next_attempt_with_its_texts(tmp_path):
    open_record(tmp_path).add([sample(1), sample(2)])
    later = open_record(tmp_path, 2)
    later.add([sample(3)])
    assert [one.prompt_id for one in later.of("sft", "mmmu")] == ["p1", "p2", "p3"]
    lines = saved(later, tmp_path / "out").splitlines()
    assert [EvaluationSample.model_validate_json(line) for line in lines] == [sample(1), sample(2), sample(3)]


def test_an_attempt_writes_its_own_file_only(tmp_path):
    open_record(tmp_path).add([sample(1)])
    before = (tmp_path / "attempt-1/samples.jsonl").read_bytes()
    open_record(tmp_path, 2).add([sample(1), sample(2)])
    assert (tmp_path / "attempt-1/samples.jsonl").read_bytes() == before
    assert b'"p1"' not in (tmp_path / "attempt-2/samples.jsonl").read_bytes()


def test_answers_to_something_else_are_left_alone(tmp_path):
    open_record(tmp_path).add([sample(1)])
    assert len(open_record(tmp_path, 2, identity="other content")) == 0
    assert len(open_record(tmp_path, 1, identity="other content")) == 0


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 900), again=st.integers(0, 4))
def test_wherever_a_kill_cuts_the_file_whole_lines_stay_and_nothing_is_there_twice(tmp_path_factory, cut, again):
    folder = tmp_path_factory.mktemp("record")
    open_record(folder).add([sample(number) for number in range(4)])
    file = folder / "attempt-1/samples.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[: min(cut, len(content))])
    whole = content[: min(cut, len(content))].count(b"\n") - 1
    record = open_record(folder)
    assert max(0, whole) <= len(record) <= max(0, whole) + 1  # a line that lacks nothing but its end is whole
    record.add([sample(number) for number in range(4 + again)])
    complete = saved(record, folder / "out")
    assert complete.count(b"\n") == 4 + again
    assert saved(open_record(folder, 2), folder / "again") == complete


def test_the_order_of_the_results_does_not_depend_on_interruptions(tmp_path):
    one, other = open_record(tmp_path / "a"), open_record(tmp_path / "b")
    one.add([sample(1), sample(2, seed=1), sample(2)])
    other.add([sample(2)])
    other = open_record(tmp_path / "b", 2)
    other.add([sample(2, seed=1), sample(1)])
    assert saved(one, tmp_path / "one") == saved(other, tmp_path / "other")


def test_a_copy_in_a_checkpoint_stands_in_for_a_folder_that_is_gone(tmp_path):
    record = open_record(tmp_path / "pod")
    record.add([sample(1)])
    (tmp_path / "state").mkdir()
    record.save(tmp_path / "state", with_head=True)
    assert len(open_record(tmp_path / "other pod", 2, resumed=tmp_path / "state")) == 1


def test_texts_stay_on_disk(tmp_path):
    record = open_record(tmp_path)
    record.add([sample(1)])
    assert [(one.response, one.question) for one in record.of("sft", "mmmu")] == [("", "")]


def test_a_disk_that_takes_nothing_is_a_sentence(tmp_path):
    (tmp_path / "attempt-1").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="answers cannot be written to"):
        open_record(tmp_path)
