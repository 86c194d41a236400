"""Data sets that lie elsewhere: a folder shaped as the hub's cache stands for the hub, a real S3 server for object storage."""

import json
from pathlib import Path

import pytest

from object_storage import bucket, object_server  # noqa: F401
from prism_trainer.contract.addresses import HubSet, hub_set
from prism_trainer.contract.job import DataSource
from prism_trainer.data.dataset import open_taught
from prism_trainer.errors import DataError, UnreachableError
from prism_trainer.remote_data import bring_data

LINE = {"question": "?", "teacher_response": "<caption>c</caption><think>t</think><answer>7</answer>"}


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("prism-vlm/gemini_distill", HubSet("prism-vlm/gemini_distill")),
        ("hf://datasets/prism-vlm/rl_dataset/a/b.parquet", HubSet("prism-vlm/rl_dataset", None, "a/b.parquet")),
        ("hf://datasets/prism-vlm/rl_dataset@refs-1", HubSet("prism-vlm/rl_dataset", "refs-1")),
        ("hf://datasets/o/n@v1/train-*.parquet", HubSet("o/n", "v1", "train-*.parquet")),
        ("hf://datasets/o/n/", HubSet("o/n")),
        ("data/set.json", None),
        ("./data/set", None),
        ("data/set/", None),
        ("/data/set", None),
        ("set", None),
        ("a/b/c", None),
        ("s3://a/b", None),
        ("hf://datasets/o", None),
    ],
)
def test_what_names_a_data_set_of_the_hub(uri, found):
    assert hub_set(uri) == found
    assert found is None or hub_set(found.uri) == found


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """One data set at two revisions, as huggingface_hub leaves it in its cache."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    folder = tmp_path / "hf/hub/datasets--org--set"
    for revision, commit, names in (("main", "1" * 40, ("a", "b", "c")), ("v1", "2" * 40, ("a",))):
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(commit)
        (folder / "snapshots" / commit / "train").mkdir(parents=True)
        for name in names:
            row = json.dumps({**LINE, "question": f"{revision} {name}?"})
            (folder / "snapshots" / commit / "train" / f"{name}.jsonl").write_text(row)
    return folder


def _questions(uri, revision=None):
    return [row.prompt.question for row in open_taught(bring_data([DataSource(uri=uri, revision=revision)]))]


@pytest.mark.parametrize(
    ("uri", "revision", "questions"),
    [
        ("org/set", None, ["main a?", "main b?", "main c?"]),
        ("org/set", "v1", ["v1 a?"]),
        ("hf://datasets/org/set@v1", None, ["v1 a?"]),
        ("hf://datasets/org/set/train/b.jsonl", None, ["main b?"]),
        ("hf://datasets/org/set/train/[bc]*.jsonl", None, ["main b?", "main c?"]),
        ("hf://datasets/org/set/train", None, ["main a?", "main b?", "main c?"]),
    ],
)
def test_a_set_of_the_hub_is_read_like_a_folder(hub, uri, revision, questions):
    assert _questions(uri, revision) == questions


def test_a_file_that_a_set_of_the_hub_lacks_is_named(hub):
    with pytest.raises(DataError, match=r"data set 'org/set' has no 'train/x.jsonl'; correct data\[\].uri"):
        _questions("hf://datasets/org/set/train/x.jsonl")


def test_a_set_that_is_not_in_the_cache_needs_the_hub(hub):
    with pytest.raises(
        UnreachableError, match=r"data set 'org/other' is not on this machine, and the hub cannot be asked for it .*or give a local path"
    ):
        _questions("org/other")


def test_an_id_that_is_also_a_folder_here_is_refused_and_both_ways_out_are_named(hub, monkeypatch, tmp_path):
    (tmp_path / "org/set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"'org/set' is the id of .* and exists here; write ./org/set or hf://datasets/org/set"):
        _questions("org/set")
    assert _questions("hf://datasets/org/set", "v1") == ["v1 a?"]


def test_waiting_for_the_hub_can_be_ended(hub, monkeypatch):
    monkeypatch.setattr("prism_trainer.hub.fetching.LOOK_SECONDS", 0.001)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_data([DataSource(uri="org/set")], stop)


def test_a_set_in_object_storage_comes_with_its_images_and_a_folder_whole(bucket, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("sets/a.jsonl", "sets/b.jsonl", "sets/images/1.png"):
        bucket.file(f"{bucket.uri}/{name}").parent.mkdir(parents=True, exist_ok=True)
        bucket.file(f"{bucket.uri}/{name}").write_text(json.dumps({**LINE, "question": name}))
    (single,) = bring_data([DataSource(uri=f"{bucket.uri}/sets/a.jsonl", weight=2)])
    assert single.weight == 2 and (Path(single.uri).parent / "images/1.png").is_file()
    assert _questions(f"{bucket.uri}/sets/b.jsonl") == ["sets/b.jsonl"]
    assert _questions(f"{bucket.uri}/sets/") == ["sets/a.jsonl", "sets/b.jsonl"]
    with pytest.raises(DataError, match=r"sets/c.jsonl' does not exist; correct its address"):
        bring_data([DataSource(uri=f"{bucket.uri}/sets/c.jsonl")])


def test_a_pattern_in_object_storage_takes_what_matches_now(bucket, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("sets/train-1.jsonl", "sets/train-2.jsonl", "sets/test-1.jsonl", "sets/older/train-0.jsonl", "sets/images/1.png"):
        bucket.file(f"{bucket.uri}/{name}").parent.mkdir(parents=True, exist_ok=True)
        bucket.file(f"{bucket.uri}/{name}").write_text(json.dumps({**LINE, "question": name}))
    assert _questions(f"{bucket.uri}/sets/train-*.jsonl") == ["sets/train-1.jsonl", "sets/train-2.jsonl"]
    copies = tmp_path / "cache/prism/s3" / bucket.name / "sets"
    assert sorted(path.name for path in copies.iterdir()) == ["images", "train-1.jsonl", "train-2.jsonl"]
    bucket.file(f"{bucket.uri}/sets/train-1.jsonl").unlink()
    assert _questions(f"{bucket.uri}/sets/train-*.jsonl") == ["sets/train-2.jsonl"]
    with pytest.raises(DataError, match=r"sets/x\*.jsonl' does not exist; correct its address"):
        bring_data([DataSource(uri=f"{bucket.uri}/sets/x*.jsonl")])


def test_a_path_stays_and_another_address_is_refused(tmp_path):
    source = DataSource(uri=str(tmp_path / "a.json"))
    assert bring_data([source]) == (source,)
    with pytest.raises(DataError, match=r"'gs://b/a.json' is at an address that is not known; expected a path, s3:// or hf://datasets/"):
        bring_data([DataSource(uri="gs://b/a.json")])
