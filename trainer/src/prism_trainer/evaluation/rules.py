"""Whether an answer is right by rules alone: choices by letter or text, rounded numbers, everything else as rewards judge it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prism_trainer.evaluation.problems import LETTERS, Problem, without_marks
from prism_trainer.rewards.answer_text import plain, tidy
from prism_trainer.rewards.answers import MAX_ANSWER_CHARS, answers_match
from prism_trainer.rewards.options import parse_option
from prism_trainer.rewards.quantities import parse_quantity

_LETTERED = re.compile(r"(?:\(([A-Z])\)|([A-Z])\s*[).:])\s*(\S.*)", re.DOTALL)


def is_right(problem: Problem, answer: str) -> bool:
    """Never raises, whatever a policy writes."""
    if not answer.strip() or len(answer) >= MAX_ANSWER_CHARS:
        return False
    if problem.options:
        return chosen_letter(answer, problem.options) == problem.references[0]
    if problem.decimals is not None and _agrees(answer, problem.references[0], problem.decimals):
        return True
    return answers_match(answer, problem.references)


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """The choice that `answer` names by its letter, its text, or both; None where it names none, several, or two different ones."""
    tidied = tidy(answer)
    letter, text = _split(tidied)
    if letter not in LETTERS[: len(options)] or not letter:
        letter, text = "", tidied
    by_text = _by_text(text, options) if text else []
    if letter:
        return letter if letter in by_text or not by_text else None
    return by_text[0] if len(by_text) == 1 else None


def _split(tidied: str) -> tuple[str, str]:
    """Letter and what follows it. "B) -5" and "(B) x^2" are no options to the rules of rewards, which know no list of choices."""
    option = parse_option(tidied)
    if option:
        return option.letter.upper(), option.text
    match = _LETTERED.fullmatch(tidied)
    return (match[1] or match[2], match[3]) if match else ("", tidied)


def _by_text(text: str, options: Sequence[str]) -> list[str]:
    named = [(letter, without_marks(option)) for letter, option in zip(LETTERS, options, strict=False)]
    same = [letter for letter, option in named if option == text]
    return same or [letter for letter, option in named if option and answers_match(text, [option])]


def _agrees(answer: str, reference: str, places: int) -> bool:
    """To `places` decimal places: the data set's answers are rounded, and a more exact answer is not a wrong one."""
    found, right = (parse_quantity(plain(tidy(text))) for text in (answer, reference))
    if found is None or right is None or not (found.unit.is_plain or right.unit.is_plain or found.unit == right.unit):
        return False
    return abs(float(found.value) - float(right.value)) <= 0.5 * 10.0**-places + 1e-9
