"""The value of an expression of numbers: + - * / ^, brackets, square roots and pi; exact as long as it is rational.

Nothing is evaluated that could be large: what would have more than `MAX_BITS` bits on the way has no value here.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

Number = Fraction | float
MAX_BITS = 8192
MAX_DEPTH = 40
RELATIVE_TOLERANCE = 1e-6
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3}(?![\d.]))?|\.\d+(?:[eE][+-]?\d{1,3}(?![\d.]))?)|(sqrt|pi)(?![a-z])|(.))")
_THOUSANDS = re.compile(r"(?<![\d.,(])\d{1,3}(?:,\d{3})+(?![\d,])")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_DATE = re.compile(r"\d+-\d+-\d+")


class _NoValueError(Exception):
    """The text is no expression of numbers, or too large a one."""


def value_of(text: str) -> Number | None:
    """The value of `text` as `answer_text.plain` writes it, or None where it has none."""
    if not text or _DATE.fullmatch(text):
        return None
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    mixed = _MIXED.fullmatch(text.strip())
    if mixed:
        text = f"{mixed[1]}({mixed[2]}+{mixed[3]}/{mixed[4]})"
    try:
        return _finite(_Reader(text).whole())
    except (_NoValueError, ZeroDivisionError, OverflowError, ValueError):
        return None


def same_value(left: Number, right: Number) -> bool:
    """Whole numbers are compared exactly, others to a millionth of the larger."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        if left.denominator == right.denominator == 1:
            return left == right
        return abs(left - right) <= Fraction(1, 10**6) * max(abs(left), abs(right))
    try:
        return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE)
    except OverflowError:
        return False


def _finite(number: Number) -> Number:
    if isinstance(number, float) and not math.isfinite(number):
        raise _NoValueError
    return number


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens = [match[match.lastindex or 0] for match in _TOKEN.finditer(text) if match[0].strip()]
        self.at = 0
        self.depth = 0

    def whole(self) -> Number:
        value = self._sum()
        if self.at < len(self.tokens):
            raise _NoValueError
        return value

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self.at += 1
        return token

    def _sum(self) -> Number:
        value = self._product()
        while self._peek() in ("+", "-"):
            value = _bounded(value + self._product() if self._take() == "+" else value - self._product())
        return value

    def _product(self) -> Number:
        negative = False
        while self._peek() in ("+", "-"):
            negative ^= self._take() == "-"
        value = self._power()
        while self._peek() in ("*", "/", "(", "sqrt", "pi"):
            if self._peek() == "/":
                self._take()
                value = _bounded(value / self._signed_power())
            else:
                explicit = self._peek() == "*" and bool(self._take())
                value = _bounded(value * (self._signed_power() if explicit else self._power()))
        return -value if negative else value

    def _signed_power(self) -> Number:
        if self._peek() == "-":
            self._take()
            return -self._power()
        return self._power()

    def _power(self) -> Number:
        base = self._atom()
        if self._peek() != "^":
            return base
        self._take()
        exponent = self._signed_power() if self._peek() == "-" else self._atom()
        return _raised(base, exponent)

    def _atom(self) -> Number:
        """Every recursion passes here."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoValueError
        value = self._read_atom(self._take())
        self.depth -= 1
        return value

    def _read_atom(self, token: str) -> Number:
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise _NoValueError
            return value
        if token == "pi":
            return math.pi
        if token == "sqrt":
            return _root(self._atom())
        if not token or not (token[0].isascii() and (token[0].isdigit() or (token[0] == "." and len(token) > 1))):
            raise _NoValueError
        return Fraction(token)


def _bounded(value: Number) -> Number:
    """A sum of fractions has the product of their denominators, so that many small ones could make a large one."""
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise _NoValueError
    return value


def _raised(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) > MAX_BITS:
            raise _NoValueError
        return Fraction(base ** int(exponent))
    if base < 0:
        raise _NoValueError
    return math.pow(base, exponent)


def _root(value: Number) -> Number:
    if value < 0:
        raise _NoValueError
    if isinstance(value, Fraction):
        above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if above**2 == value.numerator and below**2 == value.denominator:
            return Fraction(above, below)
    return math.sqrt(value)
