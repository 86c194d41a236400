"""A tiny Qwen3-VL with random weights and demonstrations about noise; no GPU."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from PIL import Image
from texts import curated_response, draw_task

from engine_stages import Stage
from model import write_base_model
from prism_trainer.contract.configs import SftConfig


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    return folder


def save_png(file: Path, width: int, height: int, seed: int) -> None:
    noise = random.Random(seed).randbytes(width * height * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), noise).save(buffer, "PNG")
    file.write_bytes(buffer.getvalue())


def conversation(number: int, images: list[str]) -> dict:
    rng = random.Random(number)
    task = draw_task(rng.randrange(10), rng.randrange(10), rng)
    question = f"{'<image>' * len(images)}\n{task.question}" if images else task.question
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": curated_response(task).text}]
    return {"messages": turns, "images": images}


@pytest.fixture
def demonstrations(tmp_path) -> Path:
    """Eight rows: six with an image, of different sizes, one of them with two; two without."""
    rows = []
    for number in range(8):
        images = [f"{number}-{one}.png" for one in range({2: 0, 5: 2, 6: 0}.get(number, 1))]
        for one, name in enumerate(images):
            save_png(tmp_path / name, 64 + 32 * (number % 3), 20 + 30 * one, seed=10 * number + one)
        rows.append(conversation(number, images))
    file = tmp_path / "demonstrations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def make_stage(tmp_path, base_dir, demonstrations):
    def make(**config) -> Stage:
        given = {"max_steps": 4, "batch_size": 4, "micro_batch_size": 2, "max_length": 1024, "save_every": 100}
        given |= {"optimizer": {"learningRate": 1e-3}}
        return Stage(tmp_path, base_dir, demonstrations, SftConfig.model_validate({**given, **config}))

    return make
