"""A model directory is what its role needs, or a sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from prism_trainer.engines.local.models import load_discriminator, load_policy, pick_device, require_same_vocabulary
from prism_trainer.errors import ModelError

CPU = torch.device("cpu")


@pytest.fixture
def copied(base_dir, tmp_path):
    return shutil.copytree(base_dir, tmp_path / "copy")


def _drop_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.language_model.norm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def _other_family(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlavaForConditionalGeneration"]}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_drop_weight, r"lacks 1 weights of a Qwen3VLForConditionalGeneration, such as 'model.language_model.norm.weight'"),
        (_cut, "cannot be loaded as"),
        (_other_family, "holds a LlavaForConditionalGeneration, expected one of Qwen3VL"),
        (lambda folder: (folder / "config.json").unlink(), "is not a model directory"),
    ],
    ids=["a17: a missing weight is not made up", "a cut file", "another family", "no configuration"],
)
def test_a_damaged_directory_is_refused(copied, damage, sentence):
    damage(copied)
    with pytest.raises(ModelError, match=sentence):
        load_policy(copied, CPU)


def test_loaded_weights_lie_in_aligned_memory(policy):
    """Kernels round by alignment, so a resumed model would otherwise train to other bits than an undisturbed one."""
    assert {tensor.data_ptr() % 64 for tensor in (*policy.parameters(), *policy.buffers()) if tensor.numel() > 64} == {0}


def test_roles_are_not_mixed_up(make_scorer, base_dir, tmp_path):
    make_scorer().model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds a discriminator, expected a policy"):
        load_policy(tmp_path, CPU)
    with pytest.raises(ModelError, match="holds a Qwen3VLForConditionalGeneration, expected a Qwen3VLMoeDiscriminator"):
        load_discriminator(base_dir, CPU)


def test_a_discriminator_that_reads_other_tokens_is_refused(policy, make_scorer):
    discriminator = make_scorer().model
    discriminator.config.text_config.vocab_size += 64
    with pytest.raises(ModelError, match="vocabulary of 448 tokens, discriminator of 512"):
        require_same_vocabulary(policy, discriminator)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_a_sentence():
    with pytest.raises(ModelError, match=r"config\.device is 'cuda' but this machine has no usable GPU"):
        pick_device("cuda")
