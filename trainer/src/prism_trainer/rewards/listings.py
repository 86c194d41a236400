"""Answers of several parts: sets, coordinates, intervals, lists, numbered parts; which have an order, and which may stand for which.

Ordered are coordinates, what stands in square brackets, numbered parts and parts between semicolons. A list that is only set apart by
commas, "and" or "or" is in any order, as are sets; beside an ordered form it is read as ordered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_PARTS = 32
_WORD_SEPARATOR = re.compile(r"\s+(?:and|or|\\?&)\s+|\s*,\s*(?:and|or)\s+")
_NUMBERED = re.compile(r"(?:^|(?<=[\s;,.]))\(([1-9a-h])\)\s*")
_LABEL = re.compile(r"[A-Z]'?\s*=?\s*(?=\()")
_PLUS_MINUS = re.compile(r"(?:\\pm|±)\s*(.+)")
_OPEN, _CLOSE = "([{", ")]}"
SET, LIST = "{}", ","
_MAY_STAND_FOR = {frozenset(pair) for pair in (("{}", ","), ("()", ","), ("[]", ","), (";", ","), ("#", ","), ("#", ";"), ("()", ";"))}


@dataclass(frozen=True)
class Listing:
    """`kind` is the pair of brackets, "," or ";" for what only these separate, "#" for numbered parts."""

    kind: str
    parts: tuple[str, ...]


def parse_listing(tidied: str) -> Listing | None:
    """The parts of a tidied text; None where it has only one, or more than `MAX_PARTS`."""
    text = _LABEL.sub("", tidied, count=1) if _LABEL.match(tidied) else tidied
    text = text.replace(r"\{", "{").replace(r"\}", "}") if text.startswith((r"\{", "{")) else text
    signs = _PLUS_MINUS.fullmatch(text)
    found = _numbered(text) or (_listing(LIST, [signs[1], f"-{signs[1]}"]) if signs else None)
    if found:
        return found
    if text[:1] and text[0] in _OPEN and _end_of_bracket(text) == len(text) - 1 and text[-1] in _CLOSE:
        return _bracketed(text)
    for kind, separators in ((";", ";"), (LIST, ",")):
        parts = _split(text, separators)
        if len(parts) > 1:
            return _listing(kind, [word for part in parts for word in _words(part)] if kind == LIST else parts)
    return _listing(LIST, _words(text))


def _bracketed(text: str) -> Listing | None:
    kind, parts = text[0] + text[-1], _split(text[1:-1], ",;")
    if kind == SET:
        return Listing(kind, tuple(dict.fromkeys(parts))) if all(parts) and len(parts) <= MAX_PARTS else None
    return _listing(kind, parts)


def _listing(kind: str, parts: list[str]) -> Listing | None:
    return Listing(kind, tuple(parts)) if 1 < len(parts) <= MAX_PARTS and all(parts) else None


def _words(text: str) -> list[str]:
    return [part.strip() for part in _WORD_SEPARATOR.split(f" {text}") if part.strip()]


def _numbered(text: str) -> Listing | None:
    marks = list(_NUMBERED.finditer(text))
    if (
        len(marks) < 2
        or marks[0].start()
        or "".join(mark[1] for mark in marks) not in ("123456789"[: len(marks)], "abcdefgh"[: len(marks)])
    ):
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return _listing("#", [text[mark.end() : end].strip(" ;,.") for mark, end in zip(marks, ends, strict=True)])


def _end_of_bracket(text: str) -> int:
    """Where the bracket that opens `text` closes; intervals may close with another kind."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return index
    return -1


def _split(text: str, separators: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if char in separators and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def same_parts(left: Listing, right: Listing, same: Callable[[str, str], bool]) -> bool:
    """Whether the parts of both are `same`, one by one or, where both are without order, in some order."""
    if left.kind != right.kind and frozenset((left.kind, right.kind)) not in _MAY_STAND_FOR:
        return False
    if len(left.parts) != len(right.parts):
        return False
    if {left.kind, right.kind} <= {SET, LIST} and not _only_one_names_its_parts(left, right):
        return _some_order(left.parts, right.parts, same)
    return all(same(*pair) for pair in zip(left.parts, right.parts, strict=True))


def _only_one_names_its_parts(left: Listing, right: Listing) -> bool:
    """ "3, 4" beside "x = 3, y = 4" has an order: that of the names."""
    return _names_apart(left) != _names_apart(right)


def _names_apart(listing: Listing) -> bool:
    names = [part.split("=")[0].strip() for part in listing.parts if "=" in part]
    return len(names) == len(listing.parts) == len(set(names))


def _some_order(left: tuple[str, ...], right: tuple[str, ...], same: Callable[[str, str], bool]) -> bool:
    """A perfect matching by augmenting paths: greedy choice could take the only partner of a later part."""
    partner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in range(len(right)):
            if column in seen or not same(left[row], right[column]):
                continue
            seen.add(column)
            if column not in partner or place(partner[column], seen):
                partner[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(left)))
