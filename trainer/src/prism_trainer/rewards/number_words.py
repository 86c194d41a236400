"""Numbers written as English words, as answers use them: zero to ninety-nine, a half, a quarter, and thousands in front of a unit."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS: dict[str, Fraction] = {
    **{word: Fraction(value) for value, word in enumerate(_UNITS)},
    **{word: Fraction(10 * value) for value, word in enumerate(_TENS, start=3)},
    "half": Fraction(1, 2),
    "quarter": Fraction(1, 4),
}
MAGNITUDES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_HYPHENATED = re.compile(r"([a-z]+ty)[- ](one|two|three|four|five|six|seven|eight|nine)\b")
_SHARE = re.compile(r"(?:one|a)[- ](half|quarter)\b")
_WORD = re.compile(r"[a-z]+")


def with_digits(text: str) -> str:
    """`text` with the number word it starts with, if it does, in digits: "Seven apples" is "7 apples"."""
    lowered = _SHARE.sub(r"\1", text[:40].casefold())
    joined = _HYPHENATED.match(lowered)
    if joined and joined[1] in NUMBER_WORDS:
        return f"{NUMBER_WORDS[joined[1]] + NUMBER_WORDS[joined[2]]}{lowered[joined.end() :]}{text[40:]}"
    word = _WORD.match(lowered)
    if word is None or word[0] not in NUMBER_WORDS:
        return text
    return f"{NUMBER_WORDS[word[0]]}{lowered[word.end() :]}{text[40:]}"
