"""The one parser of `<caption>...</caption> <think>...</think> <answer>...</answer>`.

Rewards, discriminator and evaluation all see a response through it, by character offsets, so that they never disagree about what
the caption is. Stricter than upstream's regular expression (defect C6): each tag exactly once, in order, no section empty, nothing
between the sections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TAGS = ("<caption>", "</caption>", "<think>", "</think>", "<answer>", "</answer>")
_SECTIONS = re.compile(
    r"\s*(?P<caption_block><caption>(?P<caption>.*?)</caption>)\s*"
    r"(?P<cot_block><think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>)\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Span:
    """Half-open range of characters."""

    start: int
    end: int

    def of(self, text: str) -> str:
        return text[self.start : self.end]


@dataclass(frozen=True)
class ParsedResponse:
    """A response in the right format. Blocks include their tags; `caption`, `think` and `answer` do not."""

    text: str
    caption_block: Span
    cot_block: Span
    caption: Span
    think: Span
    answer: Span


def parse_response(text: str) -> ParsedResponse | None:
    """The sections of `text`, or None where the format is wrong."""
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    match = _SECTIONS.fullmatch(text)
    if match is None or not all(match[name].strip() for name in ("caption", "think", "answer")):
        return None
    spans = {name: Span(*match.span(name)) for name in ("caption_block", "cot_block", "caption", "think", "answer")}
    return ParsedResponse(text, **spans)


def count_caption_items(parsed: ParsedResponse) -> int:
    """Bullet points in the caption: a proxy for how much it describes."""
    return sum(line.lstrip().startswith(("-", "*")) for line in parsed.caption.of(parsed.text).splitlines())


def count_think_steps(parsed: ParsedResponse) -> int:
    """Lines with content in the reasoning: a proxy for its number of steps."""
    return sum(bool(line.strip()) for line in parsed.think.of(parsed.text).splitlines())
