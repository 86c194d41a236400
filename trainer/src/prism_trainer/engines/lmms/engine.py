"""One replica: vLLM with a policy, in a process of its own (a Ray actor). The only module that calls vLLM's engine.

Requests are handed over and answers taken in one call, as many as there are: the engine's own loop goes on in between, so that an answer
that is ready waits for nobody and a free place is filled at the next call.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from PIL import Image


@dataclass(frozen=True)
class Question:
    """A rendered prompt with the mark of each image in it, the images as files, and the seed of the answer."""

    number: int
    text: str
    images: tuple[bytes, ...]
    seed: int


@dataclass(frozen=True)
class Answer:
    """What was drawn, with the terminator where it `ended` by itself; or why the question cannot be asked."""

    number: int
    token_ids: tuple[int, ...] = ()
    ended: bool = False
    refusal: str = ""


class VllmEngine:
    """`engine` are vLLM's arguments, `sampling` those of every request but the seed."""

    def __init__(self, engine: dict[str, Any], sampling: dict[str, Any]) -> None:
        from vllm import EngineArgs, LLMEngine  # in the actor: who starts replicas must not touch the GPU

        from prism_trainer.engines.lmms.forbidden import ForbiddenTokens

        self._sampling = sampling
        self._engine = LLMEngine.from_engine_args(EngineArgs(**engine, logits_processors=[ForbiddenTokens]))

    def here(self) -> tuple[str, list[int]]:
        """Node and processes, to be waited for when they are ended; answered once the model is loaded."""
        process = psutil.Process()
        return ray.get_runtime_context().get_node_id(), [process.pid, *(child.pid for child in process.children(recursive=True))]

    def exchange(self, questions: Sequence[Question]) -> list[Answer]:
        """Take new questions; return as soon as one of all that were taken is answered."""
        answers = [refused for question in questions if (refused := self._ask(question))]
        while not answers and self._engine.has_unfinished_requests():
            answers = [_answer(output) for output in self._engine.step() if output.finished]
        return answers

    def _ask(self, question: Question) -> Answer | None:
        """None where it is under way."""
        from vllm import SamplingParams

        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
        prompt = {"prompt": question.text, **({"multi_modal_data": {"image": images}} if images else {})}
        try:
            self._engine.add_request(str(question.number), prompt, SamplingParams(**self._sampling, seed=question.seed))
        except (ValueError, RuntimeError) as error:
            return Answer(question.number, refusal=str(error).strip().splitlines()[0])
        return None


def _answer(output: Any) -> Answer:
    (drawn,) = output.outputs
    if drawn.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request as '{drawn.finish_reason}'")
    return Answer(int(output.request_id), tuple(drawn.token_ids), drawn.finish_reason == "stop")
