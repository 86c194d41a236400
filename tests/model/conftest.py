"""A tiny Qwen3-VL with random weights, the digits' prompts, and everything around them; made once."""

from __future__ import annotations

import io
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from texts import curated_response, draw_task

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.discriminator.upcycle import make_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, quiet_transformers
from prism_trainer.engines.local.rollout import Vocabulary
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.responses import parse_response

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory) -> Path:
    from model import write_base_model

    quiet_transformers()
    folder = tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def processor(base_dir):
    return load_processor(base_dir)


@pytest.fixture
def policy(base_dir):
    return load_policy(base_dir, CPU).eval()


@pytest.fixture
def encoder(processor):
    return PromptEncoder(processor, "Answer as caption, think, answer.")


@pytest.fixture
def vocabulary(processor, policy):
    return Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, CPU)


@pytest.fixture
def make_scorer(policy, encoder):
    """Build a scorer over a fresh discriminator; `fields` are the discriminator's configuration."""

    def make(cot_sees_caption=True, seed=0, packed=None, **fields) -> Scorer:
        config = DiscriminatorConfig(head_std=0.5, cot_sees_caption=cot_sees_caption, **fields)
        model = make_discriminator(policy, config, torch.Generator().manual_seed(seed)).eval()
        return Scorer(model, encoder, 4096, CPU, packed)

    return make


def png(width=64, height=32, seed=0) -> bytes:
    noise = random.Random(seed).randbytes(width * height * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), noise).save(buffer, "PNG")
    return buffer.getvalue()


def make_prompts(count=3) -> list[Prompt]:
    """Questions of different lengths about different images."""
    questions = ["What is the sum of the two digits?", "What is the difference between the two digits?", "Which is it?"]
    return [Prompt(f"p:{index}", questions[index % 3], (png(seed=index),)) for index in range(count)]


def make_taught(count=3) -> list[TaughtPrompt]:
    rng = random.Random(0)
    tasks = [draw_task(rng.randrange(10), rng.randrange(10), rng) for _ in range(count)]
    return [
        TaughtPrompt(prompt, parse_response(curated_response(task).text), (str(task.answer),))
        for prompt, task in zip(make_prompts(count), tasks, strict=True)
    ]


def response(caption="- left digit 3", think="3 plus 4 gives 7", answer="7"):
    return parse_response(f"<caption>\n{caption}\n</caption>\n<think>\n{think}\n</think>\n<answer>\n{answer}\n</answer>")


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Builders of inputs."""
    return SimpleNamespace(png=png, prompts=make_prompts, taught=make_taught, response=response)
