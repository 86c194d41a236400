"""The arithmetic by which the benchmark of a whole step refuses what a GPU's memory does not hold."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

H100, H200 = 84.9e9, 150e9


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
    import memory
    import shapes

    yield memory, shapes
    for name in ("memory", "shapes"):
        sys.modules.pop(name, None)


def load(memory, size="2B", **changed):
    return memory.Load(**{"size": size, "offload": False, "vllm_share": 0.25, "lengths": (512, 3488), "padded": False, **changed})


@pytest.mark.parametrize("size", ["2B", "4B"])
def test_weights_are_counted_as_the_models_have_them(modules, size):
    memory, shapes = modules
    meta = torch.device("meta")
    policy, discriminator = shapes.make_policy(size, meta, torch.bfloat16), shapes.make_discriminator(size, meta, torch.bfloat16, 3)
    assert memory.policy_weights(size) == pytest.approx(sum(one.numel() for one in policy.parameters()), rel=0.01)
    assert memory.discriminator_weights(size, 3) == pytest.approx(sum(one.numel() for one in discriminator.parameters()), rel=0.01)


@pytest.mark.parametrize(
    ("total", "changed", "layers"),
    [
        (H100, {}, 9),
        (H100, {"offload": True}, 18),
        (H100, {"padded": True}, 2),
        (H100, {"padded": True, "offload": True}, 18),
        (H100, {"size": "4B"}, 0),
        (H100, {"size": "4B", "offload": True}, 0),
        (H200, {}, 28),
        (H200, {"size": "4B"}, 9),
    ],
    ids=str,
)
def test_as_many_layers_fit_as_the_readme_says(modules, total, changed, layers):
    assert modules[0].deepest(load(modules[0], **changed), total) == layers


def test_what_does_not_fit_is_refused_with_what_would(modules):
    memory = modules[0]
    told = memory.misfit(load(memory), 28, H100)
    assert "rollout needs 115 GB with 28 layers" in told and "9 layers fit" in told and "--offload" in told
    assert memory.misfit(load(memory), 9, H100) is None


@pytest.fixture
def asked(modules, monkeypatch, tmp_path):
    """The layers that the program takes for these options on one H100, or what it ends with."""
    import step

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=H100))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def layers(*options):
        monkeypatch.setattr(sys, "argv", ["step.py", "--out", str(tmp_path), *options])
        try:
            return step.layers_that_fit(step.read_options())
        except SystemExit as end:
            return end.code

    yield layers
    for name in ("step", "ways", "given_inputs", "given_texts"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ((), 9),
        (("--way", "upstream"), 9),
        (("--offload",), 18),
        (("--way", "upstream", "--no-offload"), 2),
        (("--discriminator-layers", "4"), 4),
    ],
    ids=str,
)
def test_both_ways_get_the_layers_that_fit_ours(asked, options, layers):
    assert asked(*options) == layers


def test_a_discriminator_that_does_not_fit_ends_the_program_with_a_sentence(asked):
    assert "9 layers fit: say so by --discriminator-layers" in asked("--discriminator-layers", "28")
    assert "no number of layers fits" in asked("--size", "4B")


def test_a_habit_is_taken_up_or_given_up_alone(asked, monkeypatch):
    import step

    def habits(*options):
        monkeypatch.setattr(sys, "argv", ["step.py", "--out", "o", *options])
        return step.read_options().habits

    assert habits() == [] and habits("--old-log-prob") == ["old-log-prob"]
    assert habits("--way", "upstream", "--no-offload") == ["old-log-prob", "padded-policy", "plain-discriminator"]
