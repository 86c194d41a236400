"""A discriminator that several processes share takes the very step that it takes in one: scores, gradients, update, files."""

from dataclasses import replace

import pytest
import torch

from prism_trainer.engines.local.models import load_discriminator
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.sharding import even_dimension
from sharded_runs import OPTIMIZER, Case, alone, shared

CPU = torch.device("cpu")


def _group(make, size, valid):
    """Responses of different lengths; those at `valid` are in the right format."""
    return [make.response(think=f"{place} and " * (place + 1) + "so on") if place in valid else None for place in range(size)]


def _cases(make):
    taught = make.taught(5)
    blind = [replace(row, prompt=replace(row.prompt, id=f"blind {row.prompt.id}", images=())) for row in taught]
    mixed = [blind[0], taught[1], blind[2]]
    return [
        Case("whole prompts, evenly", taught[:4], [*_group(make, 2, {0, 1}) * 4], 2),
        Case("whole prompts, unevenly, two at once", taught, [one for n in range(5) for one in _group(make, 3, {n % 3, 2})], 3, 6),
        Case("a group without a valid response", taught[:3], [*_group(make, 2, {0}), None, None, *_group(make, 2, {0, 1})], 2),
        Case("one prompt, its group split", taught[:1], _group(make, 5, {0, 2, 3}), 5),
        Case("one prompt, one valid response for two", taught[:1], _group(make, 4, {1}), 4),
        Case("prompts with and without images", mixed, [*_group(make, 2, {0, 1}) * 3], 2),
        Case("no valid response at all", taught[:2], [None] * 4, 2),
        Case("scored and not trained", taught[:2], [*_group(make, 2, {0, 1}) * 2], 2, learns=False),
        Case(
            "packed, whole prompts, two at once", taught, [one for n in range(5) for one in _group(make, 3, {n % 3, 2})], 3, 6, packed=True
        ),
        Case("packed, its group split", taught[:1], _group(make, 5, {0, 2, 3}), 5, packed=True),
        Case("packed, with and without images", mixed, [*_group(make, 2, {0, 1}) * 3], 2, packed=True),
        Case("the last", taught[:2], [*_group(make, 2, {0, 1}) * 2], 2),
    ]


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def outcomes(request, make, base_dir, tmp_path_factory):
    """Each case's outcome in one process without sharding and in `request.param` with it."""
    from prism_trainer.contract.configs import DiscriminatorConfig
    from prism_trainer.discriminator.upcycle import make_discriminator
    from prism_trainer.engines.local.models import load_policy, load_processor, save_model

    folder, saved = tmp_path_factory.mktemp("discriminator"), tmp_path_factory.mktemp("saved")
    config = DiscriminatorConfig(head_std=0.5)
    save_model(make_discriminator(load_policy(base_dir, CPU), config, torch.Generator().manual_seed(0)), load_processor(base_dir), folder)
    cases = _cases(make)
    return cases, alone(folder, cases), shared(folder, cases, request.param, saved), saved


def test_scores_and_metrics_are_those_of_one_process(outcomes):
    for case, expected, found in zip(*outcomes[:3], strict=True):
        torch.testing.assert_close(found.result.caption_PN, expected.result.caption_PN, atol=2e-5, rtol=1e-4, msg=case.name)
        torch.testing.assert_close(found.result.cot_PN, expected.result.cot_PN, atol=2e-5, rtol=1e-4, msg=case.name)
        assert torch.equal(found.result.valid_PN, expected.result.valid_PN)
        assert found.result.metrics == pytest.approx(expected.result.metrics, abs=1e-4, rel=1e-4), case.name


def test_gradients_are_those_of_one_process(outcomes):
    for case, expected, found in zip(*outcomes[:3], strict=True):
        assert found.gradients.keys() == expected.gradients.keys(), case.name
        for name, gradient in expected.gradients.items():
            tolerance = 1e-4 * float(gradient.abs().max()) + 1e-7
            torch.testing.assert_close(
                found.gradients[name], gradient, atol=tolerance, rtol=1e-3, msg=lambda m, n=name, c=case: f"{c.name}: {n}: {m}"
            )


def test_the_update_is_that_of_one_process(outcomes):
    for case, expected, found in zip(*outcomes[:3], strict=True):
        assert found.told == pytest.approx(expected.told, rel=1e-4), case.name
        for name, weights in expected.weights.items():
            # Adam's first step is rate * sign(gradient): where a gradient is about 0 it may go either way
            differing = (found.weights[name] - weights).abs() > 1e-5
            assert differing.float().mean() < 0.01, f"{case.name}: {name}"


def test_cases_that_leave_no_gradient_change_nothing(outcomes):
    named = {case.name: found for case, found in zip(outcomes[0], outcomes[2], strict=True)}
    assert not named["no valid response at all"].gradients and not named["scored and not trained"].gradients
    assert all(named[name].gradients for name in named if name not in ("no valid response at all", "scored and not trained"))


def test_what_is_saved_is_what_engine_local_goes_on_from(outcomes):
    *_, found, saved = outcomes
    model = load_discriminator(saved / "discriminator", CPU)
    assert model.state_dict().keys() == found[-1].weights.keys() and "score.weight" in found[-1].weights
    assert all(torch.equal(tensor, found[-1].weights[name]) for name, tensor in model.state_dict().items())
    optimizer = StageOptimizer(model, OPTIMIZER, 10)
    optimizer.restore(saved / "discriminator.safetensors")
    assert optimizer.num_steps == 1
    assert all(state["exp_avg"].shape == parameter.shape for parameter, state in optimizer._adamw.state.items())
    assert optimizer._adamw.state.keys() == set(model.parameters())


def test_experts_are_cut_where_every_process_gets_as_much():
    experts = torch.Size((4, 6144 * 2, 2048))
    assert even_dimension(experts, 8) == 1 and even_dimension(experts, 4) == 0
    assert even_dimension(torch.Size((1, 2048)), 2) == 1 and even_dimension(torch.Size((3,)), 2) == 0
