"""Upstream's defects in stage 2 and the warm-up that lie in models and data (A14 to A19, B1, B4 of the specification).

The others are where what they concern is tested. A20 is of rewards that are asked for while answers are drawn, as engine verl does: see
tests/engines/verl/test_rewards_waited_for.py.
"""

import inspect
from dataclasses import fields

import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from transformers import Qwen3VLMoeConfig

from prism_trainer.contract.job import DataSource
from prism_trainer.data.dataset import open_taught
from prism_trainer.data.rows import Prompt
from prism_trainer.discriminator.model import DISCRIMINATORS
from prism_trainer.engines.local.encoding import PromptBatch
from prism_trainer.engines.local.rollout import sample_responses
from prism_trainer.errors import DataError


@pytest.mark.parametrize("backbone", ["moe", "dense", "text"])
def test_a14_layers_can_be_sharded_one_by_one(make_scorer, backbone):
    """FSDP wraps what `_no_split_modules` names; upstream's wrapper named nothing and was one unit of five billion parameters."""
    model = make_scorer(backbone=backbone).model
    units = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    assert set(model.model.language_model.layers) <= set(units)
    sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in units]
    assert max(sizes) < sum(parameter.numel() for parameter in model.parameters()) / 3


@pytest.mark.parametrize("backbone", ["moe", "dense"])
def test_a15_it_has_no_tied_weights_and_can_be_built_without_memory(make_scorer, backbone):
    model = make_scorer(backbone=backbone).model
    with torch.device("meta"):
        empty = DISCRIMINATORS[type(model).__name__](model.config)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert not empty.all_tied_weights_keys and not any("lm_head" in name for name in empty.state_dict())


def test_a16_the_teacher_stays_text_and_never_goes_through_generation():
    given = {*inspect.signature(sample_responses).parameters, *(field.name for field in fields(PromptBatch))}
    assert not any("teacher" in name for name in given)


def test_a17_a_model_without_its_head_is_no_discriminator_whatever_the_environment(make_scorer, tmp_path, monkeypatch):
    """Upstream's class depended on MOE_MODULE_PATH, and fell back to one with a random head."""
    from safetensors.torch import load_file, save_file

    from prism_trainer.engines.local.models import load_discriminator
    from prism_trainer.errors import ModelError

    monkeypatch.setenv("MOE_MODULE_PATH", "/nowhere")
    make_scorer().model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("score.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights of a Qwen3VLMoeDiscriminator, such as 'score.weight'"):
        load_discriminator(tmp_path, torch.device("cpu"))


def test_a18_the_router_works_in_half_precision(make_scorer, make):
    """Its softmax is in float32 and its weights come back in the type of the activations."""
    scorer = make_scorer()
    block = scorer.model.model.language_model.layers[0].mlp.to(torch.bfloat16)
    hidden = torch.randn(1, 5, 192, dtype=torch.bfloat16)
    _, weights, chosen = block.gate(hidden)
    assert weights.dtype == torch.bfloat16 and chosen.shape == (5, 2) and block(hidden).dtype == torch.bfloat16
    torch.testing.assert_close(weights.float().sum(dim=1), torch.ones(5), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("width", "height"), [(64, 32), (96, 160), (224, 32)])
def test_a19_an_image_of_whole_patches_is_not_resized(encoder, make, width, height):
    """Patches are of 16 pixels, merged two by two: sides of multiples of 32 stay. Upstream first snapped to multiples of 28."""
    (encoded,) = encoder.encode([Prompt(f"p:{width}x{height}", "What?", (make.png(width, height),))])
    assert encoded.image_grid_thw.tolist() == [[1, height // 16, width // 16]]


def test_b1_a_data_set_that_is_not_there_is_an_error_and_not_made_up(tmp_path):
    """Upstream writes 100 sums to the path and trains on them."""
    missing = tmp_path / "pairs.parquet"
    with pytest.raises(DataError, match=r"pairs\.parquet"):
        list(open_taught([DataSource(uri=str(missing))]))
    assert not missing.exists()


def test_b4_a_broken_image_stops_the_stage_and_no_other_row_takes_its_place(make, tmp_path):
    """Upstream edits the system prompt, fails again, and goes on with the next row."""
    teacher = make.response().text
    rows = [
        {"prompt": [{"role": "user", "content": "<image>\nWhat?"}], "images": [{"bytes": image}], "teacher_response": teacher}
        for image in (make.png(), make.png()[:40], make.png())
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet.*row 1, column 'images': embedded image cannot be decoded"):
        list(open_taught([DataSource(uri=str(tmp_path / "rows.parquet"))]))


def test_the_configuration_of_a_discriminator_is_plain_hugging_face(make_scorer):
    assert isinstance(make_scorer().model.config, Qwen3VLMoeConfig)
