"""Answers to multiple choice: a letter, the letter with the option's text, or several letters."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BRACKETED = re.compile(r"(?:(?:option|choice)\s*)?[(\[]\s*([A-Za-z]|\d{1,2})\s*[)\]]\s*[.:]?\s*(.*)", re.IGNORECASE | re.DOTALL)
_CLOSED = re.compile(r"([A-Za-z])\s*\)\s*[.:]?\s*(.*)", re.DOTALL)
_DOTTED = re.compile(r"(?:(?:option|choice)\s+)?([A-Ja-j])\s*[.:](?:\s+(.*)|$)", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(r"(?:option|choice)\s+([A-Ja-j])", re.IGNORECASE)
_EXPLAINED = re.compile(r"\(?([A-J])\)?\s*,?\s+(?:because|since)\s.*", re.DOTALL)
_BARE = re.compile(r"[A-Za-z]")
_SEVERAL = re.compile(r"[A-J]{2,8}")


@dataclass(frozen=True)
class Option:
    """`text` is what follows the letter, "" for the letter alone; `is_bare` when nothing but the letter says that it is an option."""

    letter: str
    text: str = ""
    is_bare: bool = False


def parse_option(tidied: str) -> Option | None:
    """The option that a tidied text names; None where it names none. "(3)" names option 3, which is not the number 3."""
    if _BARE.fullmatch(tidied):
        return Option(tidied.casefold(), is_bare=True)
    for form in (_BRACKETED, _CLOSED, _DOTTED):
        match = form.fullmatch(tidied)
        if match and not _is_something_else(match[1], (match[2] or "").casefold()):
            return Option(match[1].casefold(), (match[2] or "").strip())
    named = _NAMED.fullmatch(tidied) or _EXPLAINED.fullmatch(tidied)
    return Option(named[1].casefold()) if named else None


def _is_something_else(letter: str, text: str) -> bool:
    """ "(x)(x+1)" and "(3)^2" are formulas, "(A), (C)" is a list, "(1) 5 (2) 7" and "(a) 5 (b) 7" have numbered parts."""
    return text[:1] in tuple("^*/+-=(<>!,;") or (text != "" and letter.isdigit()) or f"({chr(ord(letter[0].casefold()) + 1)})" in text


def letters_of(tidied: str) -> tuple[str, ...]:
    """The letters of "ACD", in rising order as people tick them; () for any other text, such as the segment "CA"."""
    if not _SEVERAL.fullmatch(tidied) or list(tidied) != sorted(set(tidied)):
        return ()
    return tuple(tidied)
