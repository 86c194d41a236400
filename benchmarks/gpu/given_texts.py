"""Texts in the right format whose lengths are given: random weights never end a response and never keep the format."""

from __future__ import annotations

import random

GROUP = 16
CAPTION_SHARE = 0.2
LENGTHS = "PRISM_BENCHMARK_LENGTHS"
"""In the environment: the shortest and the longest response of a group, in tokens."""


def lengths_of_a_group(low: int, high: int) -> list[int]:
    """Even between the two."""
    return [low + (high - low) * index // (GROUP - 1) for index in range(GROUP)]


def response_of(num_tokens: int, rng: random.Random) -> str:
    caption = round(CAPTION_SHARE * num_tokens)
    return in_format(digits(caption, rng), digits(num_tokens - caption - 16, rng))


def in_format(caption: str, think: str) -> str:
    return f"<caption>\n{caption}\n</caption>\n<think>\n{think}\n</think>\n<answer>\n7\n</answer>"


def digits(count: int, rng: random.Random) -> str:
    """So many tokens: the tokenizer takes each digit for one."""
    return "".join(rng.choices("0123456789", k=max(1, count)))
