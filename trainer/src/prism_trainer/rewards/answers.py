"""Is this answer the reference? Rules for numbers, option letters and short text.

Values are compared as numbers where both are numbers, to a millionth of the larger and without units; otherwise as text with case and
spaces folded. An option letter may stand in brackets or before a full stop: "(B)", "B)" and "B." are "B".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

MAX_ANSWER_CHARS = 1024
_THOUSANDS = re.compile(r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$")
_NUMBER = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$")
_OPTION = re.compile(r"^\(?([a-z])\)$")
RELATIVE_TOLERANCE = 1e-6


def answers_match(answer: str, references: Iterable[str]) -> bool:
    """True when `answer` equals one of `references`; empty and overlong answers never do."""
    stripped = answer.strip()
    if not stripped or len(stripped) >= MAX_ANSWER_CHARS:
        return False
    return any(_same(stripped, reference.strip()) for reference in references)


def _same(left: str, right: str) -> bool:
    left, right = _normalise(left), _normalise(right)
    if left == right:
        return True
    left_number, right_number = _as_number(left), _as_number(right)
    if left_number is None or right_number is None:
        return False
    return math.isclose(left_number, right_number, rel_tol=RELATIVE_TOLERANCE)


def _normalise(text: str) -> str:
    folded = " ".join(text.strip("$ \n\t").rstrip(".").split()).casefold()
    option = _OPTION.match(folded)
    return option[1] if option else folded


def _as_number(text: str) -> float | None:
    """None where `text` is no number, or one too large to tell from another."""
    plain = text.replace(",", "") if _THOUSANDS.match(text) else text
    number = float(plain) if _NUMBER.match(plain) else math.inf
    return number if math.isfinite(number) else None
