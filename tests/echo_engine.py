"""In the place of vLLM, to see how prompts are spread. A module of its own, because Ray's processes import it by name."""

from __future__ import annotations

import os
import time

import ray

from prism_trainer.engines.lmms.engine import Answer


class Echo:
    """Answers one question a call, `seconds` later; dies at question `dies_at`."""

    def __init__(self, name, seconds=0.0, dies_at=None, fails=""):
        if fails:
            raise ValueError(fails)
        self._name, self._seconds, self._dies_at, self._waiting = name, seconds, dies_at, []

    def here(self):
        return ray.get_runtime_context().get_node_id(), [os.getpid()]

    def exchange(self, questions):
        self._waiting += questions
        time.sleep(self._seconds)
        question = self._waiting.pop(0)
        if question.number == self._dies_at:
            os._exit(1)
        return [Answer(question.number, (self._name, question.seed))]
