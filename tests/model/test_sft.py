"""What sft learns from, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch
from texts import curated_response, draw_task

from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.optim import Optimizer
from prism_trainer.data.rows import Demonstration
from prism_trainer.engines.local.models import apply_freezes
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.sequences import collate_demonstrations
from prism_trainer.errors import DataError
from prism_trainer.packed import learning
from prism_trainer.stages.sft import accumulate, collate

CPU = torch.device("cpu")


@pytest.fixture
def rows(make):
    import random

    rng = random.Random(1)
    tasks = [draw_task(rng.randrange(10), rng.randrange(10), rng) for _ in range(6)]
    return [Demonstration(prompt, curated_response(task).text) for prompt, task in zip(make.prompts(6), tasks, strict=True)]


def test_only_the_response_and_its_terminator_are_learnt(encoder, rows):
    batch = collate_demonstrations(encoder, rows, 500)
    for ids, target, row in zip(batch.token_ids_RT, batch.target_RT, rows, strict=True):
        assert encoder.tokenizer.decode(ids[target]) == row.response + "<|im_end|>"


def test_the_loss_is_the_cross_entropy_of_exactly_those_tokens(policy, encoder, rows):
    batch = collate_demonstrations(encoder, rows[:2], 500)
    with torch.no_grad():
        logits = policy(**batch.model_inputs()).logits.float().log_softmax(dim=-1)
        chosen = logits[:, :-1].gather(2, batch.token_ids_RT[:, 1:, None]).squeeze(2)
        expected = -(chosen * batch.target_RT[:, 1:]).sum() / batch.target_RT.sum()
    loss, num_tokens = accumulate(policy, [batch])
    assert (loss, num_tokens) == (pytest.approx(float(expected), rel=1e-4), int(batch.target_RT.sum()))


def _gradients(policy, encoder, rows, micro, packed=False):
    policy.zero_grad()
    batches = collate(encoder, rows, SftConfig(batch_size=6, micro_batch_size=micro), CPU)
    loss, num_tokens = accumulate(policy, batches, packed=packed)
    return loss, num_tokens, {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(policy, encoder, rows):
    loss, tokens, whole = _gradients(policy, encoder, rows, 6)
    again, same_tokens, parts = _gradients(policy, encoder, rows, 2)
    assert (loss, tokens) == (pytest.approx(again, rel=1e-5), same_tokens)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-9, rtol=1e-2, msg=name)


@pytest.mark.parametrize("chunk", [2048, 50], ids=["logits at once", "logits in chunks"])
@pytest.mark.parametrize("shown", ["all", "some", "none"])
def test_packed_rows_have_the_loss_and_the_gradients_of_padded_ones(policy, encoder, rows, monkeypatch, shown, chunk):
    """Uneven rows in uneven micro-batches, a checkpoint a layer."""
    blind = {"all": (), "some": (1, 2, 3), "none": range(6)}[shown]
    for index in blind:
        prompt = rows[index].prompt
        rows[index] = replace(rows[index], prompt=replace(prompt, id=f"{prompt.id} blind", images=()))
    rows[0] = replace(rows[0], response=rows[0].response * 3)
    loss, tokens, expected = _gradients(policy, encoder, rows, 3)

    monkeypatch.setattr(learning.summed_cross_entropy, "__defaults__", (chunk,))
    policy.train().gradient_checkpointing_enable({"use_reentrant": False})
    learning.learn_packed(policy)
    found_loss, found_tokens, found = _gradients(policy, encoder, rows, 3, packed=True)
    assert (found_loss, found_tokens) == (pytest.approx(loss, rel=1e-5), tokens)
    assert found.keys() == expected.keys() and any("visual" in name for name in found) == (shown != "none")
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-9, rtol=1e-2, msg=name)


@pytest.mark.parametrize(
    ("switches", "trained"),
    [
        ({"freeze_vision": True, "freeze_projector": True}, {"language"}),
        ({"freeze_vision": False, "freeze_projector": True}, {"language", "vision"}),
        ({"freeze_vision": True, "freeze_projector": False, "freeze_language": True}, {"projector"}),
    ],
)
def test_a_frozen_part_gets_no_gradient(policy, encoder, rows, switches, trained):
    apply_freezes(policy, SftConfig(**switches))
    _, _, gradients = _gradients(policy, encoder, rows, 6)

    def part(name):
        if ".visual." not in name:
            return "language"
        return "projector" if "merger" in name else "vision"

    assert {part(name) for name in gradients} == trained


def test_a_demonstration_that_is_too_long_is_refused_not_cut(policy, encoder, rows):
    with pytest.raises(DataError, match=r"demonstration p:0 has \d+ tokens, above maxLength 20; raise it or remove the row"):
        collate(encoder, rows, SftConfig(max_length=20), CPU)


def _train(policy, encoder, rows, optimizer, steps):
    for _ in range(steps):
        accumulate(policy, collate(encoder, rows, SftConfig(batch_size=6, micro_batch_size=6), CPU))
        optimizer.step()


def test_training_goes_on_to_the_same_bits_from_saved_state(base_dir, encoder, rows, tmp_path):
    from prism_trainer.engines.local.models import load_policy

    config = Optimizer(learning_rate=1e-3, schedule="cosine", warmup_steps=2)
    straight = load_policy(base_dir, CPU)
    _train(straight, encoder, rows, StageOptimizer(straight, config, 6), 6)

    first = load_policy(base_dir, CPU)
    optimizer = StageOptimizer(first, config, 6)
    _train(first, encoder, rows, optimizer, 3)
    first.save_pretrained(tmp_path)
    optimizer.save(tmp_path / "optimizer.safetensors")
    second = load_policy(tmp_path, CPU)
    resumed = StageOptimizer(second, config, 6)
    resumed.restore(tmp_path / "optimizer.safetensors")
    _train(second, encoder, rows, resumed, 3)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_changes_nothing_and_says_so(policy):
    optimizer = StageOptimizer(policy, Optimizer(learning_rate=1.0), 5)
    before = policy.lm_head.weight.detach().clone()
    for parameter in policy.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    metrics = optimizer.step()
    assert metrics["skipped"] == 1.0 and torch.equal(before, policy.lm_head.weight)
