"""What two spellings of one answer have in common: LaTeX, Markdown and Unicode written in one way.

`tidy` keeps LaTeX and only removes what carries no meaning (`$`, `\\left`, `\\text`, "the answer is"); `plain` writes LaTeX as one would
type it.
Every step is one pass of a regular expression without nested repetition, so a text of n characters costs O(n).
"""

from __future__ import annotations

import re
import unicodedata

NESTING = 12
"""How many layers of markup, and of braces in LaTeX, are looked through; deeper ones stay as they are."""

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "±": r"\pm ", "∠": r"\angle ", "△": r"\triangle ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "²": "^2", "³": "^3",
    "º": "°",
    "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "∶": ":", "、": ",", "。": ".",
    "℃": "°C", "℉": "°F", "\u2126": "\u03a9", "≈": r"\approx ",
    "【": "[", "】": "]", "\u00b5": "\u03bc",
}  # fmt: skip
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_ROOT_SIGN = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\)|\{[^{}]*\})")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|mbox|boldsymbol|bm)\s*\{([^{}]*)\}")
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])\.?")
_SPACES = re.compile(r"\\(?:[,;:> ]|quad(?![A-Za-z])|qquad(?![A-Za-z]))|~|\s+")
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\s*\\degree(?![A-Za-z])")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)")
_SYNONYMS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"), (re.compile(r"\\leq?(?:slant)?(?![A-Za-z])"), r"\\le "),
    (re.compile(r"\\geq?(?:slant)?(?![A-Za-z])"), r"\\ge "), (re.compile(r"\\neq?(?![A-Za-z])"), r"\\ne "),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"), (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
)  # fmt: skip
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ('"', '"'))
_OPENING = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s*:|\s+is\s*:?)|answer\s*=)\s*(?=\S)",
    re.IGNORECASE,
)
_ROUGHLY = re.compile(r"(?:\\approx|approximately|roughly|about)\s+(?=\S)", re.IGNORECASE)


def tidy(text: str) -> str:
    """`text` without markup that carries no meaning, with single spaces; LaTeX commands stay."""
    text = _ROOT_SIGN.sub(_root, "".join(_typed(char) for char in text)).replace("√", r"\sqrt ")
    for _ in range(3):
        text = _TEXT.sub(r" \1 ", text)
    text = _SIZES.sub("", text.replace(r"\!", "").replace("{,}", ","))
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", _DEGREES.sub("°", text).replace(r"\%", "%"))
    return _peel(_SPACES.sub(" ", text))


def _typed(char: str) -> str:
    if char < "\x7f":
        return char
    return unicodedata.normalize("NFKC", char) if ord(char) in _FULL_WIDTH else _UNICODE.get(char, char)


def _root(match: re.Match[str]) -> str:
    inner = match[1]
    return rf"\sqrt{{{inner[1:-1] if inner[0] in '({' else inner}}}"


def _peel(text: str) -> str:
    for _ in range(NESTING):
        inner = _unwrapped(_opened(_without_stop(text.strip())))
        if inner == text:
            break
        text = inner
    if text.count("$") % 2 == 0:
        text = text.replace(r"\$", "\0").replace("$", " ").replace("\0", "$") if text.count(r"\$") % 2 == 0 else text
    return " ".join(text.replace(r"\$", "$").split())


def _without_stop(text: str) -> str:
    shorter = text.rstrip(".,;!").rstrip() if text.endswith((".", ",", ";", "!")) and not text.endswith(r"\!") else text
    is_factorial = text.endswith("!") and shorter[-1:].isalnum() and len(shorter) < 4
    return text if is_factorial or not shorter else shorter


def _opened(text: str) -> str:
    for opening in (_OPENING, _ROUGHLY):
        match = opening.match(text)
        text = text[match.end() :] if match else text
    return text


def _unwrapped(text: str) -> str:
    if text.startswith((r"\boxed{", r"\fbox{")) and text.endswith("}") and _closes_at_end(text, text.index("{")):
        return text[text.index("{") + 1 : -1]
    for opening, closing in _WRAPPERS:
        inner = text[len(opening) : -len(closing)]
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            return inner if closing not in inner and not inner.endswith("\\") else text
    return text


def _closes_at_end(text: str, start: int) -> bool:
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index == len(text) - 1
    return False


_MIXED = re.compile(r"(?<![\w.)}])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_INNERMOST = (
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\sqrt\s*\{([^{}]*)\}"), r"sqrt(\1)"),
    (re.compile(r"\^\s*\{([^{}]*)\}"), r"^(\1)"),
    (re.compile(r"_\s*\{([^{}]*)\}"), r"_\1"),
)
_COMMANDS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "pi": " pi ", "infty": "oo", "pm": "±", "le": "<=", "ge": ">=", "ne": "!=",
    "circ": "°", "colon": ":", "Omega": "\u03a9",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")


def plain(tidied: str) -> str:
    """A tidied text as one would type it on a keyboard: `\\frac{1}{2}` is "((1)/(2))", `1\\frac{1}{2}` is "(1+1/2)"; case stays."""
    text = _MIXED.sub(r"(\1+\2/\3)", tidied)
    for _ in range(NESTING):
        before = text
        for pattern, replacement in _INNERMOST:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], f" {match[1]} "), text)
    return " ".join(text.replace("\\", "").replace("{", "(").replace("}", ")").split())


_ARTICLE = re.compile(r"(?:the|an?)\s+(?=\w{2})")


def folded(text: str) -> str:
    """`text` for comparing words: no case, no article in front, hyphens as spaces."""
    text = " ".join(text.casefold().strip(" .'\"").split())
    words = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text)
    return _ARTICLE.sub("", words, count=1) if _ARTICLE.match(words) else words
