"""A problem of a benchmark, and how every problem of every benchmark is asked.

Upstream asks each benchmark in its own words, some against the system prompt ("answer directly", "step by step"), We-Math with another
system prompt (defects D1, D5). Here the question is the data set's, the choices are listed in one way, and one last line says what kind
of answer is wanted. Images go before the text; where a text points at one, it is named by its number; a mark on a
line of its own only says where the image stood.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prism_trainer.data.rows import Prompt

LETTERS = string.ascii_uppercase
IN_THE_IMAGE = "Answer the question that stands in the image."
A_LETTER = "Answer with the letter of the right choice."
YES_OR_NO = "Answer with yes or no."
WHOLE_NUMBER = "Answer with a whole number."
A_LIST = "Answer with a list of numbers."
FREE = ""
_IMAGE_MARK = re.compile(r"<\s*image\s*_?(\d*)\s*>")
_MARKS_ALONE = re.compile(r"^[ \t]*(?:<\s*image\s*_?\d*\s*>[ \t]*)+$\n?", re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    """One question with what makes an answer right.

    `references` are the answers that count; for a choice its letter, then its text. `unit` names what the question is about: prompts of
    one unit are not independent, so statistics draw whole units. `asked` is what a judge reads, where the prompt does not say it.
    """

    prompt: Prompt
    references: tuple[str, ...]
    unit: str
    options: tuple[str, ...] = ()
    decimals: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""

    @property
    def question(self) -> str:
        """For a judge, and for people."""
        return self.asked or self.prompt.question


def pose(question: str, kind: str, options: Sequence[str] = ()) -> str:
    """The text of the user's turn."""
    lines = [without_marks(_MARKS_ALONE.sub("", question)) or IN_THE_IMAGE]
    if options:
        lines += ["Choices:", *(f"{letter}. {without_marks(text)}".rstrip() for letter, text in zip(LETTERS, options, strict=False))]
    return "\n".join([*lines, kind] if kind else lines)


def decimals(places: int) -> str:
    """The kind of answer that is a number rounded to `places` decimal places."""
    return f"Answer with a number rounded to {places} decimal place{'s' if places != 1 else ''}."


def choice(letter: str, options: Sequence[str]) -> tuple[str, ...]:
    """The references of a multiple-choice problem whose right letter is `letter`; only the letter where the choice has no text."""
    text = without_marks(options[LETTERS.index(letter)]) if letter in LETTERS[: len(options)] else ""
    return (letter, text) if text else (letter,)


def without_marks(text: str) -> str:
    """`<image 2>` becomes "image 2"; a mark without a number says nothing and goes."""
    return _IMAGE_MARK.sub(lambda mark: f"image {mark[1]}" if mark[1] else "", text).strip()
