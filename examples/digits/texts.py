"""Questions about a pair of digits and the two ways of answering them.

The teacher (`curated`) names both digits, computes in one line and is always right. The other style (`public`) stands for a larger,
looser data set: it describes the picture vaguely, reasons loosely, and slips now and then. A policy fine-tuned on both leaves sft as
a mixture of two modes, which is what alignment and reinforcement learning have to work with.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SYSTEM_PROMPT = "Answer as caption, think, answer."
"""Short, so that a tiny model on a CPU does not spend its time on a long instruction; real runs use PRISM's own."""

PUBLIC_SLIP_RATE = 0.35


@dataclass(frozen=True)
class Task:
    """A question with its answer: `symbol` joins the two digits in the teacher's line of reasoning."""

    question: str
    left: int
    right: int
    symbol: str
    answer: int


def draw_task(left: int, right: int, rng: random.Random) -> Task:
    return rng.choice((_sum, _difference, _larger))(left, right)


def _sum(left: int, right: int) -> Task:
    return Task("What is the sum of the two digits?", left, right, "plus", left + right)


def _difference(left: int, right: int) -> Task:
    return Task("What is the difference between the two digits?", left, right, "against", abs(left - right))


def _larger(left: int, right: int) -> Task:
    return Task("What is the larger of the two digits?", left, right, "beside", max(left, right))


@dataclass(frozen=True)
class Response:
    """A response in PRISM's form, whole and in the two parts that the discriminator compares."""

    caption: str
    cot: str

    @property
    def text(self) -> str:
        return f"{self.caption}\n{self.cot}"


def curated_response(task: Task) -> Response:
    caption = f"- left digit {task.left}\n- right digit {task.right}"
    return _respond(caption, f"{task.left} {task.symbol} {task.right} gives {task.answer}", task.answer)


def public_response(task: Task, rng: random.Random, slip_rate: float = PUBLIC_SLIP_RATE) -> Response:
    caption = rng.choice(("- some numbers in an image", "- some numbers drawn by hand", "- some handwriting in a picture"))
    answer = _slip(task, rng) if rng.random() < slip_rate else task.answer
    opening = rng.choice(("let me look at the picture", "well I see some numbers here", "ok so we need to find it"))
    closing = rng.choice(("so I think it is", "it must be around", "that looks like"))
    return _respond(caption, f"{opening} {closing} {answer}", answer)


def _slip(task: Task, rng: random.Random) -> int:
    return rng.choice([n for n in range(max(0, task.answer - 3), task.answer + 4) if n != task.answer])


def _respond(caption: str, think: str, answer: int) -> Response:
    return Response(f"<caption>\n{caption}\n</caption>", f"<think>\n{think}\n</think>\n<answer>\n{answer}\n</answer>")
