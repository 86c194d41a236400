"""An optimizer counts its own steps, and goes on from what it saved to the same bits."""

import torch
from torch import nn

from prism_trainer.contract.optim import Optimizer
from prism_trainer.engines.local.optimizer import StageOptimizer

SCHEDULE = Optimizer(learning_rate=1e-2, schedule="cosine", warmup_steps=4)
TAKEN = (False, False, True, True, False, True, True, True)
"""Steps of the stage in which this optimizer takes one, as in alignment: none at first, none where no response was valid."""


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))


def _train(model, optimizer, steps):
    for step in steps:
        if TAKEN[step]:
            torch.manual_seed(step)
            model(torch.randn(4, 3)).square().sum().backward()
            optimizer.step()


def _resume_at(step, file):
    """Trained to `step`, saved, and loaded into a fresh optimizer."""
    model = _model()
    saved = StageOptimizer(model, SCHEDULE, len(TAKEN))
    _train(model, saved, range(step))
    saved.save(file)
    resumed = StageOptimizer(model, SCHEDULE, len(TAKEN))
    resumed.restore(file)
    return model, resumed


def test_steps_that_were_left_out_do_not_move_the_schedule_on_resume(tmp_path):
    straight = _model()
    _train(straight, StageOptimizer(straight, SCHEDULE, len(TAKEN)), range(len(TAKEN)))
    for step in (1, 3, 5, 6):
        model, resumed = _resume_at(step, tmp_path / "state.safetensors")
        assert resumed.num_steps == sum(TAKEN[:step])
        _train(model, resumed, range(step, len(TAKEN)))
        assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), model.parameters(), strict=True)), f"resumed at {step}"


def test_every_entry_comes_back_to_its_parameters_device(tmp_path):
    model, optimizer = _resume_at(4, tmp_path / "state.safetensors")
    target = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).to("meta")
    resumed = StageOptimizer(target, SCHEDULE, len(TAKEN))
    resumed.restore(tmp_path / "state.safetensors")
    entries = [(name, value.device.type) for state in resumed._adamw.state.values() for name, value in state.items()]
    assert len(entries) == 3 * len(list(model.parameters())) and {device for _, device in entries} == {"meta"}
    assert optimizer.num_steps == 2
