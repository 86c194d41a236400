"""What one process runs before the ranks start: LLaMA-Factory turns every row into tokens, once, on the disk, and none may be too long.

Before and not in the ranks, where all but one would hold a GPU and wait in a collective operation that times out.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from PIL import Image

from prism_trainer.contract.configs import SftConfig
from prism_trainer.data.rows import Prompt
from prism_trainer.data.template import bare_question
from prism_trainer.engines.llamafactory import template
from prism_trainer.engines.llamafactory.dataset import FILE, require_lengths
from prism_trainer.engines.llamafactory.scratch import Scratch
from prism_trainer.engines.llamafactory.settings import UNCUT
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_processor
from prism_trainer.engines.ranks.folder import read_job
from prism_trainer.errors import ModelError

ROWS_A_WORKER = 500
"""Below, starting another process takes longer than it saves."""


def main(folder: Path) -> None:
    scratch = Scratch(folder)
    config = read_job(folder).config
    assert isinstance(config, SftConfig)
    template.register()
    lengths = [len(row["input_ids"]) for row in _tokenise(scratch)]
    require_lengths(scratch.data, lengths, config.max_length)


def _tokenise(scratch: Scratch) -> Any:
    arguments = scratch.read_arguments()
    with (scratch.data / FILE).open("rb") as lines:
        workers = min(len(os.sched_getaffinity(0)), sum(1 for _ in lines) // ROWS_A_WORKER)
    changed = {"cutoff_len": UNCUT, "deepspeed": None, "bf16": False, "use_cpu": True, "resume_from_checkpoint": None, "flash_attn": "sdpa"}
    changed |= {"preprocessing_num_workers": workers if workers > 1 else None}
    model_args, data_args, training_args, _, _ = get_train_args(arguments | changed)
    modules = load_tokenizer(model_args)
    chosen = get_template_and_fix_tokenizer(modules["tokenizer"], data_args)
    rows = get_dataset(chosen, model_args, data_args, training_args, stage="sft", **modules)["train_dataset"]
    _require_the_models_own_way(scratch, rows[0]["input_ids"])
    return rows.select_columns(["input_ids"])


def _require_the_models_own_way(scratch: Scratch, found: list[int]) -> None:
    """The first row as the model's own chat template has it, which rollouts and the evaluation use."""
    with (scratch.data / FILE).open(encoding="utf-8") as lines:
        row = json.loads(lines.readline())
    system, user, assistant = (turn["content"] for turn in row["messages"])
    processor = load_processor(Path(scratch.read_arguments()["model_name_or_path"]))
    encoder = PromptEncoder(processor, system)
    images = tuple(Path(file).read_bytes() for file in row["images"])
    prompt = encoder.encode([Prompt("first", bare_question(user), images)])[0]
    expected = [*prompt.token_ids.tolist(), *encoder.response_ids(assistant), encoder.tokenizer.eos_token_id]
    if found != expected:
        sizes = [Image.open(io.BytesIO(image)).size for image in images]
        raise ModelError(
            f"the policy's own chat template makes {len(expected)} tokens of the first demonstration (images {sizes}), LLaMA-Factory's for "
            f"Qwen3-VL {len(found)} or others; give a model with Qwen3-VL's template, or train it with engine local"
        )
