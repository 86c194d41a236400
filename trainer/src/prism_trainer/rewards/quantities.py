"""Numbers with units. A unit that only one side gives is taken from the question, so 5 is 5 cm; units that both give must agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from prism_trainer.rewards.arithmetic import Number, same_value, value_of
from prism_trainer.rewards.number_words import MAGNITUDES, with_digits
from prism_trainer.rewards.units import PERCENT, PLAIN, Unit, parse_unit

_HEAD = re.compile(r"(?:[\d.,()+\-*/^ ]|(?<=\d)[eE][+-]?\d|(?:sqrt|pi)(?![A-Za-z]))+")
_CURRENCY = re.compile(r"([+-]?)\s*(?:US|CA|AU)?([$€£¥])\s*(?=[\d.])")
_RATIO = re.compile(r"([^:]{1,40}):([^:]{1,40})")
_MAGNITUDE = re.compile(rf"({'|'.join(MAGNITUDES)})s?\b\s*")
_UNIT_IN_BRACKETS = re.compile(r"([^()]*[\d)]\s*)\(\s*([^()\d]+(?:\^\d)?)\s*\)")


@dataclass(frozen=True)
class Quantity:
    """`value` in `unit`."""

    value: Number
    unit: Unit


def parse_quantity(text: str) -> Quantity | None:
    """The quantity that `text`, as `answer_text.plain` writes it, is; None where it is none."""
    text = with_digits(text)
    bare = value_of(text)
    if bare is not None:
        return Quantity(bare, PLAIN)
    return _ratio(text) or _with_currency(text) or _with_unit(text)


def same_quantity(left: Quantity, right: Quantity) -> bool:
    """True when both are the same amount, as far as both say of what."""
    if left.unit.is_plain != right.unit.is_plain:
        return same_value(left.value, right.value) or _percent_of_one(left, right)
    counted = left.unit.counted <= right.unit.counted or right.unit.counted <= left.unit.counted
    if left.unit.dimension != right.unit.dimension or not counted:
        return False
    if left.unit.size == right.unit.size:
        return same_value(left.value, right.value)
    return same_value(_float(left.value) * left.unit.size, _float(right.value) * right.unit.size)


def _percent_of_one(left: Quantity, right: Quantity) -> bool:
    """50 % is also 0.5, and the bare number does not say which was meant."""
    if PERCENT not in (left.unit, right.unit):
        return False
    return same_value(*(one.value / 100 if one.unit == PERCENT else one.value for one in (left, right)))


def _float(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def _ratio(text: str) -> Quantity | None:
    parts = _RATIO.fullmatch(text)
    values = [value_of(part.strip()) for part in parts.groups()] if parts else []
    if len(values) != 2 or values[0] is None or not values[1]:
        return None
    return Quantity(values[0] / values[1], PLAIN)


def _with_currency(text: str) -> Quantity | None:
    match = _CURRENCY.match(text)
    if match is None:
        return None
    return _with_unit(match[1] + text[match.end() :] + f" {match[2]}")


def _with_unit(text: str) -> Quantity | None:
    bracketed = _UNIT_IN_BRACKETS.fullmatch(text)
    if bracketed:
        text = f"{bracketed[1]} {bracketed[2]}"
    head = _HEAD.match(text)
    number = head[0].rstrip(" *-+/^(,") if head else ""
    value = value_of(number)
    if value is None:
        return None
    rest = text[len(number) :].lstrip(" *-")
    magnitude = _MAGNITUDE.match(rest)
    if magnitude:
        value, rest = value * Fraction(MAGNITUDES[magnitude[1]]), rest[magnitude.end() :]
    unit = parse_unit(rest)
    return Quantity(value, unit) if unit and (rest or magnitude) else None
