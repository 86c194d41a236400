"""How prompts are spread over replicas: real Ray actors, with engines that answer at once, late, or never again."""

from __future__ import annotations

import itertools
import signal

import psutil
import pytest
import ray

from echo_engine import Echo
from prism_trainer.contract.environments import ON_CPU
from prism_trainer.engines.lmms.cluster import Cluster, joined, usable_gpus
from prism_trainer.engines.lmms.engine import Question
from prism_trainer.engines.lmms.replicas import Replicas
from prism_trainer.errors import ModelError, PrismError, ReplicaError, Stopped

pytestmark = pytest.mark.usefixtures("cluster")


def replicas_of(*engines, places=2, tick=lambda: None):
    """The first replicas get these engines; the last one is started again and again."""
    left = iter(engines)
    actor = ray.remote(Echo).options(num_cpus=0.1)
    last = []

    def start():
        last[:] = [next(left, *last)]
        return actor.remote(**last[0])

    return Replicas(start, 1 if len(engines) == 1 or "dies_at" in engines[0] else len(engines), places, tick)


def questions(count):
    return [Question(number, "text", (), seed=100 + number) for number in range(count)]


def answers_of(replicas, asked):
    return [answer for answers in replicas.answers(asked) for answer in answers]


def test_every_question_is_answered_once_and_the_faster_replica_answers_more():
    replicas = replicas_of({"name": 0}, {"name": 1, "seconds": 0.3})
    replicas.wait_until_ready("x")
    found = answers_of(replicas, questions(20))
    replicas.close()
    assert sorted((answer.number, answer.token_ids[1]) for answer in found) == [(number, 100 + number) for number in range(20)]
    shares = [sum(answer.token_ids[0] == name for answer in found) for name in (0, 1)]
    assert shares[0] > 2 * shares[1] > 0


def test_questions_are_read_when_there_is_a_place_for_them():
    """The images of a whole benchmark are never in memory."""
    read = []
    replicas = replicas_of({"name": 0}, places=3)
    stream = replicas.answers(question for question in questions(50) if not read.append(question.number))
    next(stream)
    assert len(read) <= 2 * 3
    replicas.close()


def test_a_replica_that_dies_is_started_again_and_asked_again_what_it_had():
    replicas = replicas_of({"name": 0, "dies_at": 4}, {"name": 1})
    found = answers_of(replicas, questions(8))
    replicas.close()
    assert sorted(answer.number for answer in found) == list(range(8))
    assert [answer.token_ids[0] for answer in found] == [0] * 4 + [1] * 4


def test_one_that_dies_twice_ends_the_stage_with_a_sentence_and_may_be_tried_again():
    replicas = replicas_of({"name": 0, "dies_at": 1}, {"name": 0, "dies_at": 2})
    with pytest.raises(ReplicaError, match=r"replica 0 died twice \(.*\); what was answered is kept") as raised:
        answers_of(replicas, questions(8))
    replicas.close()
    assert raised.value.failure_class == "NodeLost"


def test_a_model_that_cannot_be_served_is_a_sentence_with_the_libraries_reason():
    replicas = replicas_of({"name": 0, "fails": "head size 7 is not supported"})
    with pytest.raises(ModelError, match=r"policy 'p' cannot be served by vLLM: ValueError: head size 7 is not supported"):
        replicas.wait_until_ready("policy 'p'")


def test_waiting_for_an_answer_ends_when_the_stage_is_asked_to_stop():
    ticks = itertools.count()

    def tick():
        if next(ticks) >= 2:
            raise Stopped(None)

    replicas = replicas_of({"name": 0, "seconds": 600.0}, tick=tick)
    with pytest.raises(Stopped):
        answers_of(replicas, questions(1))
    replicas.close()


def test_after_closing_no_process_is_left():
    replicas = replicas_of({"name": 0})
    replicas.wait_until_ready("x")
    (process,) = replicas._processes()
    assert process.is_running()
    replicas.close()
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize(
    ("gpus", "tensor_parallel", "expected"),
    [((0,), 1, 1), ((0, 0), 4, 1), ((8,), 1, 8), ((8,), 4, 2), ((8, 8), 2, 8), ((3, 3), 2, 2), ((0, 8), 8, 1)],
)
def test_a_replica_stands_on_one_machine(gpus, tensor_parallel, expected):
    assert Cluster(gpus).replicas(tensor_parallel) == expected


def test_a_replica_larger_than_every_machine_is_a_sentence():
    with pytest.raises(PrismError, match=r"config\.gpu\.tensorParallel is 4, and no machine has as many GPUs \(2\)"):
        Cluster((2, 2)).replicas(4)


@pytest.mark.parametrize(("on_cpu", "expected"), [("0", 8), ("1", 0)])
def test_gpus_that_are_only_counted_get_no_replicas(monkeypatch, on_cpu, expected):
    monkeypatch.setenv(ON_CPU, on_cpu)
    assert usable_gpus({"CPU": 44.0, "GPU": 8.0}) == expected


def test_a_cluster_that_is_joined_already_is_left_as_it_is():
    before = signal.getsignal(signal.SIGTERM)
    with joined() as cluster:
        assert cluster == Cluster((0,))
    assert ray.is_initialized() and signal.getsignal(signal.SIGTERM) is before
