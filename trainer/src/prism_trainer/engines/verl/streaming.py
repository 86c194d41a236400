"""Waiting for answers while others work on those that are there."""

from __future__ import annotations

from collections.abc import Callable

import ray

from prism_trainer.engines.verl.responses import Answered

LOOK_SECONDS = 1.0

Refs = list[ray.ObjectRef]
PassOn = Callable[[int, Answered], Refs]
"""Hears of an answer and its place among those asked for; returns the calls it has started with it."""


def nobody(place: int, answered: Answered) -> Refs:
    return []


def gather(asked: Refs, pass_on: PassOn = nobody) -> list[Answered]:
    """What the calls `asked` return, in their order; each is passed on as soon as it is there, whatever the others do.

    Waits in short turns, so that a signal is heard. Whoever fails or dies, at an answer or at what was started with one, raises at once;
    what was started and has not ended when the last answer comes is left to the caller.
    """
    place = {ref: number for number, ref in enumerate(asked)}
    answers: dict[int, Answered] = {}
    under_way = list(asked)
    while len(answers) < len(asked):
        ended, under_way = ray.wait(under_way, timeout=LOOK_SECONDS)
        for ref in ended:
            told = ray.get(ref)
            if ref in place:
                answers[place[ref]] = told
                under_way += pass_on(place[ref], told)
    return [answers[number] for number in range(len(asked))]
