"""Stage sft on LLaMA-Factory, for real, on the CPU."""

import json
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from llamafactory.extras.constants import IGNORE_INDEX
from safetensors.torch import load_file

from engine_stages import StoppedAfter
from prism_trainer.checkpoints import read_manifest, verify_checkpoint
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.engines.llamafactory import sft, template, training
from prism_trainer.engines.llamafactory.scratch import Scratch
from prism_trainer.engines.llamafactory.sft import train
from prism_trainer.engines.local.models import load_policy
from prism_trainer.engines.ranks.folder import scratch_folder
from prism_trainer.engines.ranks.launch import plain_processes
from prism_trainer.errors import PrismError, Stopped
from prism_trainer.packed.learning import summed_cross_entropy
from prism_trainer.stages import sft as local


def weights_of(checkpoint) -> dict[str, torch.Tensor]:
    return load_file(Path(checkpoint.uri) / "policy" / "model.safetensors")


def test_every_step_has_the_loss_and_the_weights_of_engine_local(make_stage):
    stage = make_stage(freeze_vision=False, freeze_projector=False)
    ours, theirs = stage.job(engine="local"), stage.job()
    expected = local.run(ours, stage.config, stage.reporter(ours))
    found = train(theirs, stage.config, stage.reporter(theirs), plain_processes(1))
    for one, other in zip(stage.lines(ours), stage.lines(theirs), strict=True):
        for name in ("loss", "grad_norm", "lr"):
            assert other["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-3), (one["step"], name)
    verify_checkpoint(found)
    for name, tensor in weights_of(expected).items():
        torch.testing.assert_close(weights_of(found)[name], tensor, atol=2e-4, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def registered():
    """Once a process, as in a rank."""
    template.register()


@pytest.mark.parametrize("micro", [1, 4], ids=["a row alone, some without an image", "four rows packed"])
def test_a_step_has_the_loss_and_the_gradients_of_the_stock_trainer_on_padded_rows(make_stage, registered, monkeypatch, micro):
    """Accumulated over micro-batches, as the mean over all targets; stock's loss is that only of one batch. The head works in chunks."""
    stage = make_stage(batch_size=8, micro_batch_size=micro, freeze_vision=False, freeze_projector=False)
    with scratch_folder(stage.job()) as folder:
        trainer = _open_trainer(stage, Scratch(folder))
        batches = list(islice(trainer.get_train_dataloader(), 8 // micro))
        whole = trainer.data_collator([trainer.train_dataset[row] for row in range(8)])
    shown = [batch["input_ids"][batch["attention_mask"].bool()] == trainer.model.config.image_token_id for batch in batches]
    assert sum(not one.any() for one in shown) == (2 if micro == 1 else 0)
    num_targets = (whole["labels"] != IGNORE_INDEX).sum()
    monkeypatch.setattr(summed_cross_entropy, "__defaults__", (50,))
    loss, gradients = _step(trainer, partial(trainer.compute_loss, num_items_in_batch=num_targets), batches)
    for module in trainer.model.modules():
        module.__dict__.pop("forward", None)
    stock_loss, stock = _step(trainer, super(training.SftTrainer, trainer).compute_loss, [whole])
    assert loss == pytest.approx(stock_loss, rel=1e-5)
    assert gradients.keys() == stock.keys() and any("patch_embed" in name for name in stock)
    for name, gradient in stock.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-9, rtol=1e-2, msg=name)


def _open_trainer(stage, scratch):
    """As a rank has it."""
    job, machines = stage.job(), plain_processes(1)
    reporter = stage.reporter(job)
    sft._prepare(scratch, job, stage.config, reporter, machines, stage.policy.absolute())
    sft._tokenise(scratch, reporter, machines)
    return training._make_trainer(scratch, stage.config)


def _step(trainer, compute_loss, batches):
    trainer.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = compute_loss(trainer.model, dict(batch))
        loss.backward()
        total += loss.item()
    return total, {name: one.grad.clone() for name, one in trainer.model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_stopped_stage_goes_on_at_the_next_step_to_the_weights_of_one_that_was_not(make_stage, num_ranks):
    """One process, and two under ZeRO-3 whose optimizer lies in shards."""
    stage, machines = make_stage(max_steps=5, save_every=2), plain_processes(num_ranks)
    straight = stage.job(attempt=1)
    expected = train(straight, stage.config, stage.reporter(straight), machines)

    first = stage.job(attempt=2)
    with pytest.raises(Stopped) as stopped:
        train(first, stage.config, StoppedAfter(stage.reporter(first), 1), machines)
    checkpoint = stopped.value.checkpoint
    assert 1 <= checkpoint.step < 5
    assert not verify_checkpoint(checkpoint).final
    assert not (Path(first.output_uri) / "scratch").exists()

    second = stage.job(attempt=3, resume_from=checkpoint)
    found = train(second, stage.config, stage.reporter(second), machines)
    assert [line["step"] for line in stage.lines(second)] == list(range(checkpoint.step + 1, 6))
    for line, again in zip(stage.lines(straight)[checkpoint.step :], stage.lines(second), strict=True):
        assert {**line["metrics"], "tokens_per_second": 0} == {**again["metrics"], "tokens_per_second": 0}
    assert all(torch.equal(tensor, weights_of(found)[name]) for name, tensor in weights_of(expected).items())


@pytest.mark.long
@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize("offloads", [(False, True), (True, False)], ids=["to the node's memory", "back"])
def test_a_stage_goes_on_where_weights_and_optimizer_are_kept_elsewhere(make_stage, zero_stage, offloads):
    """As after an out-of-memory: offload is outside of the configuration's digest, so the checkpoint is found again."""
    before, after = (make_stage(max_steps=3, save_every=2, gpu={"zeroStage": zero_stage, "offload": offload}) for offload in offloads)
    straight, machines = before.job(attempt=1), plain_processes(2)
    expected = train(straight, before.config, before.reporter(straight), machines)
    halfway = Path(straight.output_uri) / "step-000002"
    ref = CheckpointRef(stage="sft", uri=str(halfway), digest=read_manifest(halfway).digest, step=2)
    resumed = after.job(attempt=2, resume_from=ref)
    found = train(resumed, after.config, after.reporter(resumed), machines)
    for name, tensor in weights_of(expected).items():
        torch.testing.assert_close(weights_of(found)[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_a_policy_on_the_way_loads_as_the_final_one_does(make_stage):
    stage = make_stage(max_steps=3, save_every=1)
    job = stage.job()
    final = train(job, stage.config, stage.reporter(job), plain_processes(1))
    before = Path(job.output_uri) / "step-000002"
    assert {path.name for path in (before / "policy").iterdir()} == {path.name for path in (Path(final.uri) / "policy").iterdir()}
    for folder in (before, Path(final.uri)):
        load_policy(folder / "policy", torch.device("cpu"))


def test_a_demonstration_that_is_too_long_is_refused_by_name_before_a_step(make_stage, demonstrations):
    stage = make_stage(max_length=150, max_steps=1)
    job = stage.job()
    with pytest.raises(PrismError, match=rf"demonstration {demonstrations}:\d has \d+ tokens, above maxLength 150; raise it") as failed:
        train(job, stage.config, stage.reporter(job), plain_processes(1))
    assert failed.value.failure_class == "UserError"


@pytest.mark.long
def test_two_ranks_under_zero_3_train_as_one_although_one_of_them_has_no_image(make_stage, demonstrations):
    """Row 2 and 6 have none, so with one row a rank some rank has none in some forward, while the other reduces its vision tower.

    Row 0 is so long that its head works in chunks, and the other rank's does not.
    """
    first, *others = map(json.loads, demonstrations.read_text().splitlines())
    first["messages"][1]["content"] *= 60
    demonstrations.write_text("".join(json.dumps(row) + "\n" for row in (first, *others)))
    stage = make_stage(freeze_vision=False, freeze_projector=False, batch_size=2, micro_batch_size=1, max_length=8192)
    alone, together = stage.job(attempt=1), stage.job(attempt=2)
    expected = train(alone, stage.config, stage.reporter(alone), plain_processes(1))
    found = train(together, stage.config, stage.reporter(together), plain_processes(2))
    for one, other in zip(stage.lines(alone), stage.lines(together), strict=True):
        for name in ("loss", "grad_norm", "lr"):
            assert other["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-3), (one["step"], name)
    for name, tensor in weights_of(expected).items():
        torch.testing.assert_close(weights_of(found)[name], tensor, atol=2e-4, rtol=1e-3, msg=name)
