"""A dense model made sparse."""

import pytest
import torch

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.discriminator.model import Qwen3VLMoeDiscriminator
from prism_trainer.discriminator.upcycle import make_discriminator, upcycle
from prism_trainer.engines.local.models import load_discriminator
from prism_trainer.errors import ModelError


def _hidden(backbone, encoder, prompts):
    batch = encoder.collate(prompts)
    types = (batch.token_ids_PT == encoder.image_token_id).int()
    return backbone(
        input_ids=batch.token_ids_PT,
        attention_mask=batch.mask_PT.long(),
        mm_token_type_ids=types,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
    ).last_hidden_state[:, -1]


def test_without_noise_the_experts_compute_the_dense_function(policy, encoder, make):
    sparse = upcycle(policy, DiscriminatorConfig(noise_std=0.0), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        dense, upcycled = (_hidden(model, encoder, make.prompts()) for model in (policy.model, sparse.model))
    torch.testing.assert_close(upcycled, dense, atol=2e-5, rtol=1e-4)


def test_with_noise_it_does_not(policy, encoder, make):
    sparse = upcycle(policy, DiscriminatorConfig(noise_std=0.01), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        dense, upcycled = (_hidden(model, encoder, make.prompts()) for model in (policy.model, sparse.model))
    assert (upcycled - dense).abs().max() > 1e-2


def test_each_tensor_comes_from_where_the_paper_says(policy):
    sparse = upcycle(policy, DiscriminatorConfig(noise_std=0.01, num_experts=3), torch.Generator().manual_seed(0))
    source, target = policy.state_dict(), sparse.state_dict()
    layer = "model.language_model.layers.1.mlp"
    fused = torch.cat([source[f"{layer}.gate_proj.weight"], source[f"{layer}.up_proj.weight"]])
    experts = target[f"{layer}.experts.gate_up_proj"]
    assert experts.shape == (3, *fused.shape)
    noise = experts - fused
    assert 0.009 < noise.std() < 0.011 and not torch.equal(noise[0], noise[1])
    assert 0.01 < target[f"{layer}.gate.weight"].std() < 0.03
    copied = [name for name in target if ".mlp.experts." not in name and ".mlp.gate." not in name and name != "score.weight"]
    assert len(copied) > 30 and all(torch.equal(target[name], source[name]) for name in copied)


def test_it_saves_and_loads_as_a_hugging_face_directory(policy, tmp_path):
    sparse = upcycle(policy, DiscriminatorConfig(head_dropout=0.1), torch.Generator().manual_seed(0))
    sparse.save_pretrained(tmp_path)
    again = Qwen3VLMoeDiscriminator.from_pretrained(tmp_path)
    assert again.dropout.p == 0.1
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in sparse.state_dict().items())


def test_saved_loaded_and_saved_again_it_is_the_same_files(policy, tmp_path):
    """Otherwise a checkpoint of a resumed stage would have another digest than that of an undisturbed one."""
    upcycle(policy, DiscriminatorConfig(), torch.Generator().manual_seed(0)).save_pretrained(tmp_path / "made")
    load_discriminator(tmp_path / "made", torch.device("cpu")).save_pretrained(tmp_path / "loaded")
    for file in (tmp_path / "made").iterdir():
        assert file.read_bytes() == (tmp_path / "loaded" / file.name).read_bytes(), file.name


def test_a_model_of_another_family_is_refused(make_scorer):
    with pytest.raises(ModelError, match="cannot upcycle a 'qwen3_vl_moe' model, expected 'qwen3_vl'"):
        make_discriminator(make_scorer().model, DiscriminatorConfig(), torch.Generator())
