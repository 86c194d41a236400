"""Is this answer the reference? Rules first; formulas that no rule decides go to math-verify.

The rules know numbers with units, options, sets, coordinates, lists and words. Numbers agree to a millionth of the larger, whole numbers
exactly. A unit, an option's text or a variable's name that only one side gives is no difference; one that both give must agree. A rule that
knows both sides has the last word: math-verify drops units and brackets, and would call 5 kg and 5 lb, or [1, 2] and {1, 2}, the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from prism_trainer.rewards.answer_text import folded, plain, tidy
from prism_trainer.rewards.listings import LIST, Listing, parse_listing, same_parts
from prism_trainer.rewards.options import Option, letters_of, parse_option
from prism_trainer.rewards.quantities import Quantity, parse_quantity, same_quantity
from prism_trainer.rewards.symbolic import SHARED, SymbolicJudge

MAX_ANSWER_CHARS = 1024
MAX_SYMBOLIC_QUESTIONS = 8
"""For one pair of texts: lists in any order compare every part with every other."""
MAX_NESTING = 6
_NAMED = re.compile(
    r"((?:\\(?:angle|triangle)\s*|m\\angle\s*)?(?:\\[A-Za-z]+|[A-Za-z][A-Za-z ]{0,30})(?:_\{?\w{1,8}\}?)?'?(?:\([A-Za-z]\))?)\s*=\s*([^=]+)"
)
_POLARITY = re.compile(r"(yes|no|true|false)(?![a-z])(?:\s*[,.;:]\s*(.*))?", re.IGNORECASE | re.DOTALL)
_POLAR_WORD = re.compile(r"\b(yes|no|not|true|false)\b", re.IGNORECASE)
_FORMULA = re.compile(r"\d|\\[A-Za-z]|[=^<>+*/|]|(?<=\w)\s*-\s*(?=\w)")
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!sqrt|sin|cos|tan|log|exp|arcsin|arccos|arctan|mod)[A-Za-z]{4,}")


def answers_match(answer: str, references: Iterable[str], *, symbolic: SymbolicJudge | None = SHARED) -> bool:
    """True when `answer` equals one of `references`; empty and overlong answers never do. `symbolic=None` judges by rules alone.

    Never raises, and takes bounded time: linear in the length of the texts, plus `symbolic.seconds` for each of at most
    `MAX_SYMBOLIC_QUESTIONS` comparisons of a reference.
    """
    stripped = answer.strip()
    if not stripped or len(stripped) >= MAX_ANSWER_CHARS:
        return False
    return any(_match(stripped, reference.strip(), symbolic) for reference in references)


def answers_match_by_rules(answer: str, references: Iterable[str]) -> bool:
    """As `answers_match`, without math-verify: formulas count only where a rule decides them."""
    return answers_match(answer, references, symbolic=None)


def formulas_match(answer: str, references: Iterable[str], *, symbolic: SymbolicJudge = SHARED) -> bool:
    """As `answers_match`, by math-verify alone: no option letters, no words, and units are ignored."""
    stripped = answer.strip()
    if not stripped or len(stripped) >= MAX_ANSWER_CHARS:
        return False
    return any(_same_formula(stripped, reference.strip(), symbolic) for reference in references)


def _same_formula(answer: str, reference: str, symbolic: SymbolicJudge) -> bool:
    if answer == reference:
        return True
    return 0 < len(reference) < MAX_ANSWER_CHARS and symbolic.same(_as_latex(tidy(answer)), _as_latex(tidy(reference)))


def _match(answer: str, reference: str, symbolic: SymbolicJudge | None) -> bool:
    if answer == reference:
        return True
    if not reference or len(reference) >= MAX_ANSWER_CHARS:
        return False
    return _Comparison(symbolic).same(tidy(answer), tidy(reference), MAX_NESTING)


class _Comparison:
    """One pair of texts. Each rule says True, False, or None where it does not know both sides."""

    def __init__(self, symbolic: SymbolicJudge | None) -> None:
        self.symbolic = symbolic
        self.questions_left = MAX_SYMBOLIC_QUESTIONS

    def same(self, left: str, right: str, nesting: int) -> bool:
        if left == right:
            return bool(left)
        if not left or not right or not nesting:
            return False
        for rule in (self._options, self._polarity, self._quantities, self._names, self._listings, self._words):
            verdict = rule(left, right, nesting - 1)
            if verdict is not None:
                return verdict
        return self._formulas(left, right)

    def _options(self, left: str, right: str, nesting: int) -> bool | None:
        one, other = _option(left), _option(right)
        if one and other:
            texts = not one.text or not other.text or self.same(one.text, other.text, nesting)
            return one.letter == other.letter and texts
        option, text = (one, right) if one else (other, left)
        if option is None or option.is_bare:
            return None
        return bool(option.text) and self.same(option.text, text, nesting)

    def _polarity(self, left: str, right: str, nesting: int) -> bool | None:
        one, other = _polarity(left), _polarity(right)
        return one == other if one and other else None

    def _quantities(self, left: str, right: str, nesting: int) -> bool | None:
        one, other = _quantity(left), _quantity(right)
        return same_quantity(one, other) if one and other else None

    def _names(self, left: str, right: str, nesting: int) -> bool | None:
        one, other = _named(left), _named(right)
        if one and other:
            return folded(plain(one[0])) == folded(plain(other[0])) and self.same(one[1], other[1], nesting)
        if one and "=" not in right:
            return self.same(one[1], right, nesting)
        return self.same(left, other[1], nesting) if other and "=" not in left else None

    def _listings(self, left: str, right: str, nesting: int) -> bool | None:
        one, other = _listing(left, right), _listing(right, left)
        if one and other:
            return same_parts(one, other, lambda a, b: self.same(a, b, nesting))
        whole = right if one else left
        return False if (one or other) and (_quantity(whole) or not _FORMULA.search(whole)) else None

    def _words(self, left: str, right: str, nesting: int) -> bool | None:
        one, other = folded(plain(left)), folded(plain(right))
        if one == other:
            return bool(one)
        formulas = all(_FORMULA.search(text) and not _PROSE.search(text) for text in (left, right))
        return None if formulas else False

    def _formulas(self, left: str, right: str) -> bool:
        if self.symbolic is None or not self.questions_left:
            return False
        self.questions_left -= 1
        return self.symbolic.same(_as_latex(left), _as_latex(right))


@lru_cache(maxsize=4096)
def _quantity(tidied: str) -> Quantity | None:
    return parse_quantity(plain(tidied))


@lru_cache(maxsize=4096)
def _option(tidied: str) -> Option | None:
    return parse_option(tidied)


def _listing(tidied: str, beside: str) -> Listing | None:
    """`tidied` as a listing; "AC" is one beside a listing of letters."""
    letters = letters_of(tidied)
    if letters:
        others = parse_listing(beside)
        return Listing(LIST, letters) if others and all(_option(part) for part in others.parts) else None
    return parse_listing(tidied)


def _named(tidied: str) -> tuple[str, str] | None:
    match = _NAMED.fullmatch(tidied)
    return (match[1].strip(), match[2].strip()) if match and not re.search(r"[,;<>]|\bor\b|\band\b", tidied) else None


def _polarity(tidied: str) -> str | None:
    """ "yes" for "Yes" and "Yes, it is."; None for "yes or no" and "Yes, no"."""
    match = _POLARITY.fullmatch(tidied)
    return match[1].casefold() if match and not _POLAR_WORD.search(match[2] or "") else None


def _as_latex(tidied: str) -> str:
    return re.sub(r"(?<![A-Za-z\\])(pi|sqrt|sin|cos|tan|ln|log|infty)(?![A-Za-z])", r"\\\1", tidied).replace("*", r"\cdot ")
