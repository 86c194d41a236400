"""How a question is put to a model and how a response is laid out; upstream's, to the letter. The system prompt is `contract.job`'s."""

from __future__ import annotations

IMAGE_TAG = "<image>"


def user_turn(question: str, num_images: int = 1) -> str:
    """`<image>`, line break, question, line break; without images the question alone."""
    return f"{IMAGE_TAG * num_images}\n{question}\n" if num_images else f"{question}\n"


def bare_question(turn: str) -> str:
    """The question without tags of its own: the images are listed elsewhere, and go first."""
    return turn.replace(IMAGE_TAG, "").strip()


def caption_block(caption: str) -> str:
    return f"<caption>\n{caption.strip()}\n</caption>"


def cot_block(think: str, answer: str) -> str:
    return f"<think>\n{think.strip()}\n</think>\n<answer>\n{answer.strip()}\n</answer>"
