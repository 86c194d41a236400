"""A step waits for the discriminator's scores and for no other reward (upstream's defect A20)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray

from discriminator_ranks import job_of
from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.engines.reading import Marks
from prism_trainer.engines.verl.composition import compose_verl
from prism_trainer.engines.verl.overrides import Site, alignment_overrides
from prism_trainer.engines.verl.responses import Answered, Response
from prism_trainer.responses import parse_response
from prism_trainer.rewards.verifiable import VerifiableReward

TEXT = "<caption>\na\n</caption>\n<think>\nb\n</think>\n<answer>\n7\n</answer>"
SIZE = 2


def answered(number: int) -> Answered:
    row = TaughtPrompt(Prompt(f"p:{number}", "?", ()), parse_response(TEXT))
    return Answered(f"0-{number}", row, ["a", "b"], [9, 9], [Response(TEXT, 5, True, VerifiableReward(0.0, 0.0, 1.0))] * SIZE)


class Rollouts:
    """All answers are there."""

    def submit(self, tasks):
        return [ray.put(answered(number)) for number in tasks]


class Discriminators:
    """Two ranks, of which the first reads everything; a score is the number of its prompt."""

    def score_and_accumulate(self, groups, step, *, learns):
        places = [group.number * SIZE + n for group in groups for n in range(SIZE)]
        read = {group.number: (9.0, 9.0) for group in groups}, {place: (float(place // SIZE),) * 2 for place in places}
        return [ray.put((Marks(*read), 0.1)), ray.put((Marks(), 0.1))]


@pytest.mark.parametrize("alone", [0, 1], ids=["colocated", "with GPUs of its own"])
def test_a20_a_step_has_its_rewards_whenever_they_were_asked_for(ray_address, alone):
    """Upstream asks for none where the discriminator scores and rewards come asynchronously, and then waits for what it has not asked."""
    from prism_trainer.engines.verl.alignment_trainer import AlignmentTrainer

    trainer = object.__new__(AlignmentTrainer)
    trainer.stage = AlignmentConfig(rollout={"group_size": SIZE}, gpu={"discriminator_gpus": alone})
    trainer.rollouts, trainer.critic_wg, trainer.global_steps = Rollouts(), Discriminators(), 1
    trainer.learns, trainer.calls, trainer.saturated_steps, trainer.readable = True, [], 0, list
    trainer.draw = SimpleNamespace(groups=trainer._answer([0, 1, 2]))
    assert len(trainer.calls) == (3 if alone else 0), "asked for while answers were drawn"
    trainer._compute_values(None, {})
    assert trainer.adversary.caption_PN.tolist() == [[0, 0], [1, 1], [2, 2]] and trainer.adversary.valid_PN.all()


def test_a20_verls_own_rewards_are_off_and_nothing_waits_for_them(ray_address):
    """No worker of its reward loop is started, which would be asked for each answer; and there is a list of them, without which verl's
    step would turn to a reward model."""
    from verl.experimental.reward_loop import RewardLoopManager

    config = AlignmentConfig()
    composed = compose_verl(alignment_overrides(job_of(config), config, Site("cuda", 1, 8, "/models/policy")))
    assert RewardLoopManager(config=composed, rm_resource_pool=None).reward_loop_worker_handles == []
