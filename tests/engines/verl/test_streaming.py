"""A discriminator with GPUs of its own reads each group as soon as it is answered, while the others are still being drawn."""

from __future__ import annotations

import pytest
import ray
import ray.exceptions

import streamed_alignment
from prism_trainer.engines.verl.streaming import gather
from prompt_actors import Prompts
from streamed_alignment import RECORD, events_of
from verl_jobs import alignment_attempt, write_discriminator

STEPS = 3
PROGRAM = (streamed_alignment.__file__,)


@pytest.fixture
def prompts(ray_address):
    actor = ray.remote(num_cpus=0)(Prompts).remote()
    yield actor
    ray.kill(actor)


def ask(prompts):
    return [prompts.answer.remote(number) for number in range(3)]


def test_answers_keep_the_order_they_were_asked_in_and_are_passed_on_in_the_order_they_come(prompts):
    following, passed_on = {2: 0, 0: 1}, []

    def pass_on(place, answered):
        passed_on.append((place, answered))
        return [prompts.tell.remote(following[place])] if place in following else []

    prompts.tell.remote(2)
    assert gather(ask(prompts), pass_on) == [0, 1, 2]
    assert passed_on == [(2, 2), (0, 0), (1, 1)]


def test_what_was_started_with_an_answer_holds_up_no_other(prompts):
    for number in (0, 1):
        prompts.tell.remote(number)
    asked = ask(prompts)
    assert gather(asked[:2], lambda place, answered: [asked[2]]) == [0, 1]


@pytest.mark.timeout(60)
def test_a_failure_ends_the_wait_at_once_though_answers_are_outstanding(prompts):
    prompts.tell.remote(1)
    with pytest.raises(ray.exceptions.RayTaskError, match="the discriminator cannot read this"):
        gather(ask(prompts), lambda place, answered: [prompts.read_what_cannot_be_read.remote()])
    with pytest.raises(ray.exceptions.RayTaskError, match="the discriminator cannot read this"):
        gather([prompts.answer.remote(0), prompts.read_what_cannot_be_read.remote()])


@pytest.mark.long
@pytest.mark.training
def test_a_discriminator_apart_reads_while_others_are_drawn_and_takes_the_same_step(policy_dir, data, tmp_path, ray_address, monkeypatch):
    """Colocated on a Ray of its own; and apart, asked to stop in the second step when one group is read and one not yet answered."""
    folder = tmp_path / "discriminator"
    write_discriminator(policy_dir, folder)
    options = {"steps": STEPS, "device": "cpu"}
    gpu = {"max_prompt_tokens": 128, "tokens_per_gpu": 512, "rollout_sequences": 32, "discriminator_gpus": 1}
    apart = alignment_attempt(tmp_path / "apart", policy_dir, folder, data, gpu=gpu, **options)
    stopped = apart.finish(apart.start(PROGRAM, "1"))
    assert stopped["outcome"] == "Stopped" and stopped["checkpoint"]["step"] == 2, apart.log
    again = apart.after(tmp_path / "again", stopped["checkpoint"])
    assert again.finish(again.start(PROGRAM))["outcome"] == "Succeeded", again.log
    for step in range(STEPS):
        assert_read_before_all_were_answered(events_of((apart if step < 2 else again).folder / RECORD, step))

    monkeypatch.delenv("RAY_ADDRESS")
    together = alignment_attempt(tmp_path / "together", policy_dir, folder, data, **options)
    assert together.finish()["outcome"] == "Succeeded", together.log
    for found, expected in zip([*apart.metrics, *again.metrics], together.metrics, strict=True):
        print(found, expected, sep="\n")
        assert found["step"] == expected["step"] and found["metrics"]["seconds/score_hidden"] > 0
        assert learnt(found).keys() == learnt(expected).keys()
    texts = [[one["response"] for one in attempt.samples(1)] for attempt in (apart, together)]
    assert texts[0] == texts[1]
    assert learnt(apart.metrics[0]) == pytest.approx(learnt(together.metrics[0]), rel=1e-3, abs=1e-4)


def learnt(line) -> dict[str, float]:
    """A step's metrics but those of time."""
    return {name: value for name, value in line["metrics"].items() if "second" not in name}


def assert_read_before_all_were_answered(events: list[str]) -> None:
    """Each group is passed on, in the order in which they are answered; the last is answered when another has been read."""
    answered = [event for event in events if event.endswith(" answered") and event != "all answered"]
    assert sorted(answered) == [f"{place} answered" for place in range(3)], events
    assert next(n for n, event in enumerate(events) if event.endswith(" read")) < events.index("2 answered") < events.index("all answered")
