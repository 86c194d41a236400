"""The discriminator's worker, on one rank and on two, against engine local: several steps from the same weights on the same responses."""

from __future__ import annotations

import pytest
import torch

from discriminator_ranks import Step, by_engine_local, by_workers, left_by_workers
from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig
from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.discriminator.upcycle import make_discriminator
from prism_trainer.engines.local.models import load_policy, load_processor, save_model
from prism_trainer.responses import parse_response
from verl_update import png


def write_discriminator(base_dir, folder, **fields):
    policy = load_policy(base_dir, torch.device("cpu"))
    model = make_discriminator(policy, DiscriminatorConfig(head_std=0.5, **fields), torch.Generator().manual_seed(0))
    save_model(model, load_processor(base_dir), folder)
    return folder


@pytest.fixture(scope="module")
def discriminator_dir(base_dir, tmp_path_factory):
    return write_discriminator(base_dir, tmp_path_factory.mktemp("discriminator"))


@pytest.fixture(scope="module")
def dropping_dir(base_dir, tmp_path_factory):
    return write_discriminator(base_dir, tmp_path_factory.mktemp("dropping"), head_dropout=0.3)


def response(caption, think):
    return parse_response(f"<caption>\n{caption}\n</caption>\n<think>\n{think}\n</think>\n<answer>\n7\n</answer>")


def taught(number, *, image=True):
    prompt = Prompt(f"p:{number}", "What is the sum?" * (number + 1), (png(number),) if image else ())
    return TaughtPrompt(prompt, response("- two digits", "3 plus 4 gives 7"))


def steps():
    """Whole prompts, uneven over two; one prompt whose group is split; one without an image; and nothing valid at all."""
    students = [response("- x " * (n + 1), "because " * (7 - n)) if n % 3 != 1 else None for n in range(12)]
    return [
        Step([taught(0), taught(1, image=False), taught(2)], students),
        Step([taught(3)], [students[0], None, students[2], students[3]]),
        Step([taught(4), taught(5)], [None] * 8),
        Step([taught(6), taught(7)], [*students[:4], None, None, None, None]),
    ]


def config(**fields):
    optimizer = {"learning_rate": 1e-4, "weight_decay": 0.1, "warmup_steps": 3, "grad_clip": 0.5}
    return AlignmentConfig(steps=5, rollout={"group_size": 4}, micro_batch_size=4, discriminator_optimizer=optimizer, **fields)


@pytest.mark.parametrize(("world", "fields", "resume_at"), [(1, {}, None), (2, {}, 2), (2, {"gpu": {"offload": True}}, None)], ids=str)
def test_steps_are_those_of_engine_local(discriminator_dir, tmp_path, world, fields, resume_at):
    ours = by_engine_local(discriminator_dir, config(), steps())
    theirs = by_workers(discriminator_dir, config(**fields), steps(), tmp_path / "ranks", world, resume_at)
    for expected, found in zip(ours.results, theirs.results, strict=True):
        torch.testing.assert_close(found.caption_PN, expected.caption_PN, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.cot_PN, expected.cot_PN, atol=1e-3, rtol=1e-3)
        assert found.metrics == pytest.approx(expected.metrics, abs=1e-3, rel=1e-2)
    for expected, found in zip(ours.told, theirs.told, strict=True):
        assert found == pytest.approx(expected, rel=1e-2)
    for name, weight in ours.weights.items():
        # Adam's first steps are about rate * sign(gradient), which a rounding may turn where the gradient is about 0
        assert ((theirs.weights[name] - weight).abs() > 2e-5).float().mean() < 0.01, name


AT_ONCE = [[[0, 1, 2]], [[0]], [[0, 1]], [[0, 1]]]
ONE_BY_ONE = [[[2], [0], [1]], [[0]], [[1], [0]], [[1], [0]]]
"""Groups come in another order; in the last step the first to come has no valid response."""


@pytest.mark.parametrize(("world", "folder"), [(1, "discriminator_dir"), (2, "discriminator_dir"), (1, "dropping_dir")])
def test_groups_that_come_one_by_one_leave_what_they_leave_together(request, tmp_path, world, folder):
    """Scores and gradients; with dropout too, where one process reads them all."""
    folder = request.getfixturevalue(folder)
    together, streamed = (
        left_by_workers(folder, config(balance_coef=0.1, score_reg_coef=0.1), steps(), orders, tmp_path / name, world)
        for name, orders in (("together", AT_ONCE), ("streamed", ONE_BY_ONE))
    )
    for expected, found in zip(together, streamed, strict=True):
        torch.testing.assert_close(found.result.caption_PN, expected.result.caption_PN, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.result.cot_PN, expected.result.cot_PN, atol=1e-5, rtol=1e-5)
        assert torch.equal(found.result.valid_PN, expected.result.valid_PN)
        assert found.result.metrics == pytest.approx(expected.result.metrics, abs=1e-5, rel=1e-5)
        assert found.gradients.keys() == expected.gradients.keys() and bool(found.gradients) is bool(expected.result.num_valid)
        for name, gradient in expected.gradients.items():
            tolerance = 1e-5 * float(gradient.abs().max()) + 1e-9
            torch.testing.assert_close(found.gradients[name], gradient, atol=tolerance, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
