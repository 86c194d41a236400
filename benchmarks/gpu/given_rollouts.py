"""Rollout workers that draw responses of given lengths, and hand on given texts. A module of its own: Ray's workers have to import it."""

from __future__ import annotations

import os
import random
from typing import Any

from given_texts import GROUP, LENGTHS, lengths_of_a_group, response_of

from prism_trainer.engines.verl.responses import Response, reward_of
from prism_trainer.engines.verl.rollout_worker import RolloutWorker

ORDINARY_TOKENS = range(10, 300)


class GivenTexts(RolloutWorker):
    """A prompt's responses have the lengths of its group, in their order."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lengths = lengths_of_a_group(*map(int, os.environ[LENGTHS].split()))

    def _sampling(self, task: Any, number: int) -> dict[str, Any]:
        given = {"ignore_eos": True, "max_tokens": self._lengths[number % GROUP], "allowed_token_ids": list(ORDINARY_TOKENS)}
        return {**super()._sampling(task, number), **given}

    def _judge(self, task: Any, token_ids: list[int]) -> Response:
        text = response_of(len(token_ids), random.Random(len(token_ids)))
        return Response(text, len(token_ids), True, reward_of(self._job.config, task.row, None))
