"""vLLM replicas as Ray actors: who is free gets the next prompts; who dies is started once more and asked again."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from prism_trainer.engines.lmms.engine import Answer, Question
from prism_trainer.errors import ModelError, ReplicaError

TICK_SECONDS = 0.5
START_SECONDS = 1800.0
"""For a replica that loads a large model from a slow disk."""
END_SECONDS = 60.0
log = logging.getLogger(__name__)


@dataclass
class _Replica:
    """`under_way` is what it was asked and has not answered, by number; `is_new` says that it knows nothing of that yet."""

    number: int
    actor: Any
    under_way: dict[int, Question] = field(default_factory=dict)
    was_restarted: bool = False
    is_new: bool = True


class Replicas:
    """`start` makes an actor; each has up to `places` prompts at once. `tick` is called often, and what it raises ends the wait."""

    def __init__(self, start: Callable[[], Any], count: int, places: int, tick: Callable[[], None]) -> None:
        self._engine, self._places, self._tick = start, places, tick
        self._here: list[Any] = []
        self._replicas = [_Replica(number, self._start()) for number in range(count)]

    def wait_until_ready(self, what: str) -> None:
        """Until every replica has loaded its model, or ModelError with the reason of the first that cannot."""
        waiting, end = list(self._here), time.monotonic() + START_SECONDS
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=TICK_SECONDS)
            self._tick()
            if time.monotonic() > end:
                raise ModelError(f"{what}: vLLM was not ready within {START_SECONDS:g} s; look at the attempt's log")
            for one in ready:
                try:
                    ray.get(one)
                except RayError as error:
                    raise ModelError(f"{what} cannot be served by vLLM: {reason_of(error)}") from error

    def answers(self, questions: Iterable[Question]) -> Iterator[list[Answer]]:
        """As they come, in whatever order; questions are taken from the iterator when there is a place for them."""
        waiting = iter(questions)
        calls: dict[Any, _Replica] = {}
        for replica in self._replicas:
            calls |= self._hand_over(replica, waiting)
        while calls:
            ready, _ = ray.wait(list(calls), timeout=TICK_SECONDS)
            self._tick()
            for call in ready:
                replica = calls.pop(call)
                answered = self._take(replica, call)
                calls |= self._hand_over(replica, waiting)
                yield answered

    def close(self) -> None:
        """End all, and wait until those on this machine are gone: their GPUs are wanted next."""
        processes = self._processes()
        for replica in self._replicas:
            ray.kill(replica.actor)
        psutil.wait_procs(processes, timeout=END_SECONDS)

    def _hand_over(self, replica: _Replica, waiting: Iterator[Question]) -> dict[Any, _Replica]:
        """The call that is under way with it now; none when it has nothing to do."""
        new = list(itertools.islice(waiting, self._places - len(replica.under_way)))
        asked = [*replica.under_way.values(), *new] if replica.is_new else new
        replica.under_way |= {question.number: question for question in new}
        if not replica.under_way:
            return {}
        replica.is_new = False
        return {replica.actor.exchange.remote(asked): replica}

    def _take(self, replica: _Replica, call: Any) -> list[Answer]:
        try:
            answers: list[Answer] = ray.get(call)
        except RayError as error:
            self._restart(replica, error)
            return []
        for answer in answers:
            del replica.under_way[answer.number]
        return answers

    def _restart(self, replica: _Replica, error: RayError) -> None:
        """Its prompts have seeds of their own, so the answers do not change."""
        if replica.was_restarted:
            way_out = "what was answered is kept: run again, with a smaller config.batchSize or config.gpu.memoryShare if memory was short"
            raise ReplicaError(f"replica {replica.number} died twice ({reason_of(error)}); {way_out}") from error
        log.warning("replica %d died (%s) and is started again", replica.number, reason_of(error))
        ray.kill(replica.actor)
        replica.actor, replica.was_restarted, replica.is_new = self._start(), True, True

    def _start(self) -> Any:
        actor = self._engine()
        self._here.append(actor.here.remote())
        return actor

    def _processes(self) -> list[psutil.Process]:
        """Of the replicas on this machine that got as far as to tell."""
        told, _ = ray.wait(self._here, num_returns=len(self._here), timeout=0)
        here = ray.get_runtime_context().get_node_id()
        found: list[psutil.Process] = []
        for one in told:
            with suppress(RayError, psutil.NoSuchProcess):
                node, pids = ray.get(one)
                found += [psutil.Process(pid) for pid in pids if node == here]
        return found


def reason_of(error: RayError) -> str:
    """The last line that says something: before it stands the traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
