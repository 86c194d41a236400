"""The layout in which the paper's discriminator was released, on a small stand-in: the same scores, or a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.discriminator.released import convert
from prism_trainer.discriminator.upcycle import upcycle
from prism_trainer.engines.local.models import load_discriminator, load_policy
from prism_trainer.errors import ModelError

CPU = torch.device("cpu")
TEXT_4_57 = {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "default", "mrope_section": [12, 10, 10], "mrope_interleaved": True}}


def write_released(folder, model, processor):
    """`model` as upstream's Qwen3VLMoeValueHead.save_pretrained left it under transformers 4.57, in two shards."""
    folder.mkdir()
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    tensors["v_head.1.weight"] = tensors.pop("score.weight")
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    for name in list(tensors):
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            tensors[name] = tensors[name].transpose(1, 2).contiguous()
    names = sorted(tensors)
    shards = {f"model-0000{number + 1}-of-00002.safetensors": names[number::2] for number in range(2)}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = model.config.to_dict()
    for name in ("head_dropout", "cot_sees_caption"):
        config.pop(name)
    config["text_config"].pop("rope_parameters")
    config["text_config"] |= TEXT_4_57
    config |= {"architectures": ["Qwen3VLMoeForConditionalGeneration"], "transformers_version": "4.57.0"}
    (folder / "config.json").write_text(json.dumps(config))
    processor.save_pretrained(folder)
    torch.save({"v_head.summary.weight": tensors["v_head.1.weight"].clone()}, folder / "value_head.pt")
    return folder


@pytest.fixture
def sparse(policy):
    """Weights that bfloat16 can hold, as the released ones are."""
    model = upcycle(policy, DiscriminatorConfig(head_std=0.5), torch.Generator().manual_seed(0)).eval()
    for parameter in model.parameters():  # not its buffers, which are computed anew
        parameter.data = parameter.data.to(torch.bfloat16).float()
    return model


@pytest.fixture
def released(sparse, processor, tmp_path):
    return write_released(tmp_path / "released", sparse, processor)


def _logits(model, encoder, prompts):
    """A score at every token, as upstream's forward gives, without any of our code between."""
    batch = encoder.collate(prompts)
    with torch.no_grad():
        hidden = model.model(
            input_ids=batch.token_ids_PT,
            attention_mask=batch.mask_PT.long(),
            mm_token_type_ids=(batch.token_ids_PT == encoder.image_token_id).int(),
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.image_grid_thw,
        ).last_hidden_state
    return model.read_scores(hidden).detach()


def _drop(folder, name):
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if tensors.pop(name, None) is not None:
            save_file(tensors, file, metadata={"format": "pt"})


def test_item_6_the_released_layout_gives_the_same_logit_at_every_token(sparse, released, encoder, make):
    loaded = load_discriminator(released, CPU).eval()
    expected = _logits(sparse, encoder, make.prompts())
    assert expected.std() > 0.1
    torch.testing.assert_close(_logits(loaded, encoder, make.prompts()), expected, atol=0, rtol=0)


def test_it_is_presented_as_it_was_warmed_up(released):
    config = load_discriminator(released, CPU).config
    assert (config.cot_sees_caption, config.head_dropout) == (False, 0.0)


def test_converted_it_is_a_directory_of_ours(sparse, released, encoder, make, tmp_path):
    convert(released, tmp_path / "ours")
    loaded = load_discriminator(tmp_path / "ours", CPU).eval()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in sparse.state_dict().items())
    assert loaded.config.cot_sees_caption is False
    assert not (tmp_path / "ours/value_head.pt").exists() and (tmp_path / "ours/tokenizer.json").is_file()


def test_a_head_in_the_pickle_only_is_converted_and_never_opened_by_a_stage(sparse, released, tmp_path):
    _drop(released, "v_head.1.weight")
    with pytest.raises(ModelError, match=r"scalar head in value_head.pt only, .*convert it once with `python -m prism"):
        load_discriminator(released, CPU)
    convert(released, tmp_path / "ours")
    assert torch.equal(load_discriminator(tmp_path / "ours", CPU).score.weight, sparse.score.weight)


class Opened:
    """A pickle that would run something; `weights_only` does not build it."""

    def __reduce__(self):
        return (print, ("opened",))


def test_a_pickle_with_more_than_tensors_is_not_opened(released, tmp_path, capsys):
    _drop(released, "v_head.1.weight")
    torch.save({"v_head.summary.weight": Opened()}, released / "value_head.pt")
    with pytest.raises(ModelError, match=r"value_head.pt' holds more than tensors"):
        convert(released, tmp_path / "ours")
    assert "opened" not in capsys.readouterr().out


def _surplus(folder):
    save_file({"model.language_model.layers.9.mlp.gate.weight": torch.ones(1)}, folder / "model-00003.safetensors")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: _drop(folder, "model.language_model.norm.weight"), "lacks the tensor 'model.language_model.norm.weight'"),
        (_surplus, "has a tensor 'model.language_model.layers.9.mlp.gate.weight' that the released layout does not know"),
    ],
    ids=["a17: a missing weight is not made up", "a tensor too many"],
)
def test_a_damaged_copy_is_refused(released, damage, sentence):
    damage(released)
    with pytest.raises(ModelError, match=sentence):
        load_discriminator(released, CPU)


def test_experts_in_the_new_layout_are_not_turned_by_mistake(released):
    for file in released.glob("*.safetensors"):
        tensors = {name: t.transpose(1, 2).contiguous() if ".experts." in name else t for name, t in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"experts\.\w+' has shape .* when read as ours, expected"):
        load_discriminator(released, CPU)


def test_it_is_no_policy(released):
    with pytest.raises(ModelError, match="holds a discriminator, expected a policy"):
        load_policy(released, CPU)
