"""Units of measurement: which dimension a unit has and how large it is, so that 5 m is 500 cm and never 5 cm.

A word that is no unit counts what it names: "12 apples" is not "12 oranges". Which unit was asked for often stands in the question, so
callers treat a missing unit as the same.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from prism_trainer.rewards.number_words import NUMBER_WORDS

_NAMES: dict[str, tuple[str, float]] = {}
"""Each spelling -> dimension, size in the dimension's first unit."""


def _define(dimension: str, *sizes: tuple[float, str]) -> None:
    for size, spellings in sizes:
        for spelling in spellings.split():
            _NAMES[spelling] = (dimension, size)


_define("length", (1, "m meter metre"), (1e3, "km kilometer kilometre"), (0.1, "dm decimeter decimetre"),
        (1e-2, "cm centimeter centimetre"), (1e-3, "mm millimeter millimetre"), (1e-6, "\u03bcm um micrometer micrometre micron"),
        (1e-9, "nm nanometer nanometre"), (0.0254, "in inch inche"), (0.3048, "ft foot feet"), (0.9144, "yd yard"),
        (1609.344, "mi mile"))  # fmt: skip
_define("mass", (1, "kg kilogram kilo"), (1e-3, "g gram"), (1e-6, "mg milligram"), (1e-9, "\u03bcg microgram"), (1e3, "Mg t tonne"),
        (0.45359237, "lb pound"), (0.028349523125, "oz ounce"))  # fmt: skip
_define("time", (1, "s sec second"), (1e-3, "ms millisecond"), (1e-6, "\u03bcs microsecond"), (1e-9, "ns nanosecond"),
        (60, "min minute"), (3600, "h hr hour"), (86400, "day"), (604800, "week"), (31557600, "year yr"),
        (2629800, "month"))  # fmt: skip
_define("speed", (0.44704, "mph"), (1 / 3.6, "kph kmph kmh"))
_define("litre", (1, "L l liter litre"), (1e-3, "mL ml milliliter millilitre"), (3.785411784, "gal gallon"))
_define("current", (1, "A amp ampere"), (1e-3, "mA milliampere"), (1e-6, "\u03bcA"))
_define("volt", (1, "V volt"), (1e-3, "mV millivolt"), (1e3, "kV kilovolt"))
_define("ohm", (1, "\u03a9 \u2126 ohm"), (1e3, "k\u03a9 kilohm kiloohm"), (1e6, "M\u03a9 megohm"))
_define("newton", (1, "N newton"), (1e3, "kN kilonewton"))
_define("joule", (1, "J joule"), (1e3, "kJ kilojoule"), (1e6, "MJ"), (4.184, "cal calorie"), (4184, "kcal"),
        (1.602176634e-19, "eV"), (3.6e6, "kWh"))  # fmt: skip
_define("watt", (1, "W watt"), (1e3, "kW kilowatt"), (1e-3, "mW"), (1e6, "MW megawatt"))
_define("pascal", (1, "Pa pascal"), (1e3, "kPa kilopascal"), (1e6, "MPa"), (101325, "atm"), (1e5, "bar"))
_define("hertz", (1, "Hz hertz"), (1e3, "kHz"), (1e6, "MHz"), (1e9, "GHz"))
_define("kelvin", (1, "K kelvin"))
_define("celsius", (1, "°C celsius"))
_define("fahrenheit", (1, "°F fahrenheit"))
_define("coulomb", (1, "C coulomb"), (1e-6, "\u03bcC"), (1e-9, "nC"))
_define("amount", (1, "mol mole"), (1e-3, "mmol"))
_define("molar", (1, "M"))
_define("tesla", (1, "T tesla"), (1e-3, "mT"))
_define("angle", (math.pi / 180, "° deg degree"), (1, "rad radian"), (math.pi / 10800, "arcminute"))
_define("dollar", (1, "$ dollar USD buck"), (0.01, "¢ cent"))
_define("euro", (1, "€ euro EUR"))
_define("sterling", (1, "£ GBP"), (0.01, "pence"))
_define("yen", (1, "¥ yen yuan RMB CNY"))
_define("", (0.01, "% percent pct"), (1, "unit"))

_ANY_CASE = {
    name.casefold(): found for name, found in _NAMES.items() if len(name) > 3 or name in ("km", "kg", "cm", "ml", "Hz", "USD", "ft", "lb")
}
_POWER_WORDS = ((re.compile(r"\b(?:square|sq\.?)\s+(\w+)"), r"\1^2"), (re.compile(r"\bcubic\s+(\w+)"), r"\1^3"),
                (re.compile(r"(\w+)\s+squared\b"), r"\1^2"), (re.compile(r"(\w+)\s+cubed\b"), r"\1^3"))  # fmt: skip
_FACTOR = re.compile(r"(°[CF]?|[$€£¥¢%]|[^\W\d_]+)\.?\s*(?:\^?\s*\(?(-?\d)\)?)?")
_SPLIT = re.compile(r"\s*(/|\bper\b)\s*")
_NO_COUNT = frozenset(
    (
        "and",
        "but",
        "not",
        "nor",
        "the",
        "then",
        "per",
        "plus",
        "minus",
        "times",
        "maybe",
        "perhaps",
        "either",
        "over",
        "each",
        "more",
        "less",
    )
)
MAX_UNIT_CHARS = 60


@dataclass(frozen=True)
class Unit:
    """`dimension` maps a base to its power, `size` is in first units, `counted` the words that are no units."""

    dimension: tuple[tuple[str, int], ...]
    size: float
    counted: frozenset[str] = frozenset()

    @property
    def is_plain(self) -> bool:
        """No dimension and nothing counted: a bare number's unit."""
        return not self.dimension and not self.counted and self.size == 1


PLAIN = Unit((), 1.0)
PERCENT = Unit((), 0.01)


def parse_unit(text: str) -> Unit | None:
    """The unit written in `text`, None where it is none. "" is the unit of a bare number."""
    if len(text) > MAX_UNIT_CHARS:
        return None
    for pattern, written in _POWER_WORDS:
        text = pattern.sub(written, text)
    parts = _SPLIT.split(text.strip())
    dimension: dict[str, int] = {}
    size, counted = 1.0, set[str]()
    for index, part in enumerate(parts[::2]):
        factors = _factors(part)
        if factors is None or (not factors and len(parts) > 1):
            return None
        for base, scale, power in factors or ():
            signed = -power if index else power
            if scale is None:
                counted.add(base)
            else:
                dimension[base] = dimension.get(base, 0) + (signed if base else 0)
                size *= scale ** float(signed)
    return Unit(_in_bases(dimension), _with_litres(dimension, size), frozenset(counted))


def _factors(text: str) -> list[tuple[str, float | None, int]] | None:
    """Each factor as base, size (None for a word that is counted) and power."""
    found: list[tuple[str, float | None, int]] = []
    at = 0
    while at < len(text):
        if text[at] in " *-()":
            at += 1
            continue
        match = _FACTOR.match(text, at)
        known = _lookup(match[1]) if match else None
        if match is None or (known is None and not _is_counted(match[1])):
            return None
        at = match.end()
        power = int(match[2] or 1)
        base, scale = known or (_singular(match[1].casefold()), None)
        found.append((base, scale, power))
    return found if len(found) <= 5 else None


def _lookup(name: str) -> tuple[str, float] | None:
    for spelling in (name, _singular(name)):
        found = _NAMES.get(spelling) or _ANY_CASE.get(spelling.casefold())
        if found:
            return found
    return None


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def _is_counted(word: str) -> bool:
    return len(word) > 2 and word.isalpha() and word.casefold() not in _NO_COUNT and word.casefold() not in NUMBER_WORDS


def _in_bases(dimension: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """A litre is a volume, and "mph" a length in a time."""
    litres, speeds = dimension.get("litre", 0), dimension.get("speed", 0)
    merged = {base: power for base, power in dimension.items() if base not in ("litre", "speed")}
    merged["length"] = merged.get("length", 0) + 3 * litres + speeds
    merged["time"] = merged.get("time", 0) - speeds
    return tuple(sorted((base, power) for base, power in merged.items() if power))


def _with_litres(dimension: dict[str, int], size: float) -> float:
    return float(size * 1e-3 ** dimension.get("litre", 0))
