"""What LLaMA-Factory is given: rows, arguments, DeepSpeed's settings. None of it needs LLaMA-Factory."""

from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.gpu import SftGpu, WarmupGpu
from prism_trainer.contract.job import DataSource
from prism_trainer.data.dataset import open_demonstrations
from prism_trainer.engines.llamafactory.dataset import read_order, require_lengths, write_dataset
from prism_trainer.engines.llamafactory.scratch import Scratch
from prism_trainer.engines.llamafactory.settings import Place, training_arguments, zero_settings
from prism_trainer.errors import DataError


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


def turns(question: str, response: str = "It is red.", system: str | None = None) -> list[dict]:
    own = [] if system is None else [{"role": "system", "content": system}]
    return [*own, {"role": "user", "content": question}, {"role": "assistant", "content": response}]


@pytest.fixture
def sets(tmp_path):
    """A set with its image beside it, and one that holds its images itself."""
    (tmp_path / "red.png").write_bytes(png("red"))
    rows = [
        {"messages": turns("<image>\nWhich colour?"), "images": ["red.png"]},
        {"messages": turns("What is a colour?", system="Be brief."), "images": []},
    ]
    (tmp_path / "files.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embedded = [{"messages": turns("<image>\nAnd this?"), "images": [{"bytes": png("blue"), "path": None}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(embedded), tmp_path / "embedded.parquet")
    return (DataSource(uri=str(tmp_path / "files.jsonl")), DataSource(uri=str(tmp_path / "embedded.parquet")))


def write(folder: Path, sets, order=(2, 0, 2, 1)) -> list[dict]:
    write_dataset(folder, open_demonstrations(sets), np.array(order), "Be kind.", lambda: None)
    name = json.loads((folder / "dataset_info.json").read_text())["demonstrations"]["file_name"]
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_every_row_is_written_once_and_trained_on_in_its_order(tmp_path, sets):
    rows = write(tmp_path / "data", sets)
    questions = [row["messages"][1]["content"] for row in rows]
    assert [questions[place] for place in read_order(tmp_path / "data")] == [
        "<image>\nAnd this?\n", "<image>\nWhich colour?\n", "<image>\nAnd this?\n", "What is a colour?\n",
    ]  # fmt: skip


def test_an_image_with_a_file_stays_where_it_is_and_bytes_become_a_file(tmp_path, sets):
    with_file, without, embedded = write(tmp_path / "data", sets)
    assert with_file["images"] == [str(tmp_path / "red.png")] and without["images"] == []
    assert Path(embedded["images"][0]).is_relative_to(tmp_path / "data")
    assert Path(embedded["images"][0]).read_bytes() == png("blue")


def test_the_systems_turn_is_the_rows_own_or_the_runs(tmp_path, sets):
    assert [row["messages"][0]["content"] for row in write(tmp_path / "data", sets)] == ["Be kind.", "Be brief.", "Be kind."]


def test_text_that_llama_factory_takes_for_a_file_is_refused(tmp_path, sets):
    Path(sets[0].uri).write_text(json.dumps({"messages": turns("What does <video> mean?"), "images": []}) + "\n")
    with pytest.raises(DataError, match=r"demonstration .*files.jsonl:0 has '<video>' in its text"):
        write(tmp_path / "data", sets[:1], order=(0,))


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [([9, 10, 11], r"embedded.parquet:0 has 11 tokens, above maxLength 10"), ([9, 10], "LLaMA-Factory took 2 of 3 demonstrations")],
)
def test_a_row_that_would_be_cut_or_dropped_is_refused(tmp_path, sets, lengths, sentence):
    write(tmp_path / "data", sets)
    with pytest.raises(DataError, match=sentence):
        require_lengths(tmp_path / "data", lengths, 10)


def place(**fields) -> Place:
    given = {"policy": "p", "data": "d", "tokens": "t", "output": "o", "resume": None, "zero_file": Path("zero.json"), "world_size": 8}
    return Place(**{**given, "have_gpus": True, "flash_attention": False, **fields})


def test_the_papers_recipe_is_what_llama_factory_gets():
    """README: full language model, vision and projector frozen, lr 1e-5 cosine with 10 % warm-up, 2 a device on 8 devices."""
    arguments = training_arguments(SftConfig(), place(), seed=42, total_steps=1000)
    expected = {
        "stage": "sft", "finetuning_type": "full", "freeze_vision_tower": True, "freeze_multi_modal_projector": True,
        "freeze_language_model": False, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-5,
        "lr_scheduler_type": "cosine", "warmup_steps": 100, "weight_decay": 0.0, "cutoff_len": 8192, "bf16": True, "seed": 42,
        "deepspeed": "zero.json", "flash_attn": "sdpa", "disable_gradient_checkpointing": False, "save_steps": 100,
    }  # fmt: skip
    assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"flash_attention": True}, "flash_attn", "fa2"),
        ({"world_size": 1}, "gradient_accumulation_steps", 8),
        ({"have_gpus": False}, "bf16", False),
        ({"have_gpus": False, "zero_file": None, "world_size": 1}, "use_cpu", True),
        ({"resume": Path("r")}, "resume_from_checkpoint", "r"),
    ],
)
def test_the_machines_decide_how(fields, name, value):
    assert training_arguments(SftConfig(), place(**fields), seed=1, total_steps=10)[name] == value


@pytest.mark.parametrize("kept", [True, False])
def test_layers_are_computed_again_only_where_the_stage_says_so(kept):
    config = SftConfig(gpu=SftGpu(gradient_checkpointing=not kept))
    assert training_arguments(config, place(), seed=1, total_steps=10)["disable_gradient_checkpointing"] is kept


@pytest.mark.parametrize(
    ("gpu", "stage", "on_the_host"),
    [
        (SftGpu(), 3, set()),
        (SftGpu(zero_stage=2), 2, set()),
        (SftGpu(zero_stage=2, offload=True), 2, {"offload_optimizer"}),
        (SftGpu(offload=True), 3, {"offload_optimizer", "offload_param"}),
    ],
)
def test_zero_shards_and_offloads_as_configured(gpu, stage, on_the_host):
    zero = zero_settings(gpu, have_gpus=True)["zero_optimization"]
    assert zero["stage"] == stage and {name for name in zero if name.startswith("offload")} == on_the_host


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (WarmupGpu, {"zeroStage": 3}, "zeroStage is 3; the discriminator's warm-up knows 2"),
    ],
)
def test_what_zero_cannot_do_is_refused(kind, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind.model_validate(fields)


def test_a_cache_is_counted_while_another_process_makes_and_removes_folders_in_it(tmp_path):
    scratch = Scratch(tmp_path)
    scratch.cache.mkdir()
    (scratch.cache / "kept").write_bytes(b"four")
    counted = threading.Event()

    def rebuild() -> None:
        while not counted.is_set():
            for number in range(20):
                folder = scratch.cache / f"json-{number}" / "0.0.0.incomplete"
                folder.mkdir(parents=True)
                (folder / "part").write_bytes(b"five!")
            for number in range(20):
                shutil.rmtree(scratch.cache / f"json-{number}")

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        found = {scratch.cached_bytes() for _ in range(500)}
    finally:
        counted.set()
        thread.join()
    assert min(found) >= 4 and {size % 5 for size in found} == {4} and scratch.cached_bytes() == 4
