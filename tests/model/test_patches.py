"""The patch embedding as a matrix product: what the convolution gives, wherever a model is loaded."""

import pytest
import torch
from torch import nn

from prism_trainer.engines.local.models import load_discriminator, load_policy, save_model
from prism_trainer.packed.patches import use_linear_patches

CPU = torch.device("cpu")


class Tower(nn.Module):
    """What transformers calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, 24, kernel_size=(2, 16, 16), stride=(2, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_it_has_the_output_and_the_gradients_of_the_convolution(dtype):
    tower = Tower().to(dtype)
    patches = torch.randn(7, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype).requires_grad_()
    inputs = (patches, tower.patch_embed.proj.weight, tower.patch_embed.proj.bias)

    def result():
        out = tower.patch_embed.proj(patches)
        return out, *torch.autograd.grad(out.double().square().mean(), inputs)

    convolved = result()
    use_linear_patches(tower)
    for found, expected in zip(result(), convolved, strict=True):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-12, rtol=0)


def test_no_model_that_is_loaded_runs_a_convolution(base_dir, make_scorer, processor, encoder, make, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a convolution ran")

    save_model(make_scorer().model, processor, tmp_path)
    models = [load_policy(base_dir, CPU).model, load_discriminator(tmp_path, CPU).model, make_scorer().model.model]
    monkeypatch.setattr(nn.Conv3d, "forward", refuse)
    shown = encoder.collate(make.prompts(1))
    for model in models:
        assert len(model.get_image_features(shown.pixel_values, shown.image_grid_thw).pooler_output) == 1


def test_a_policy_is_saved_as_it_was(base_dir, processor, tmp_path):
    policy = load_policy(base_dir, CPU)
    save_model(policy, processor, tmp_path)
    again = load_policy(tmp_path, CPU)
    assert policy.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in policy.state_dict().items())
