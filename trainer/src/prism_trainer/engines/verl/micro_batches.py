"""How a rank cuts its rows into micro-batches: a prompt's responses beside each other, because a micro-batch reads each prompt once.

In the place of verl's `prepare_micro_batches`, which balances rows one by one and knows no prompts. A prompt whose responses do not fit
into one micro-batch is read by each that has some of them; nothing else depends on where the cuts are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A response: the number of its prompt, and the tokens of both."""

    prompt: int
    prompt_tokens: int
    response_tokens: int


def num_micro_batches(rows: Sequence[Row], budget: int) -> int:
    """How few of them hold all rows within `budget` tokens each."""
    return len(_fill(rows, _by_prompt(rows), budget))


def cut(rows: Sequence[Row], budget: int, count: int) -> list[list[int]]:
    """Exactly `count` micro-batches, of places in `rows`, about equally long; at least `num_micro_batches`, at most a row each.

    More of them than are needed keep other ranks company: sharded weights are gathered by all ranks as often.
    """
    order = _by_prompt(rows)
    longest = max(row.prompt_tokens + row.response_tokens for row in rows)
    budgets = range(longest, max(longest, budget) + 1)
    least = bisect_left(budgets, True, key=lambda budget: len(_fill(rows, order, budget)) <= count)
    parts = _fill(rows, order, budgets[min(least, len(budgets) - 1)])
    while len(parts) < count:
        index = max((index for index, part in enumerate(parts) if len(part) > 1), key=lambda index: _tokens(rows, parts[index]))
        middle = len(parts[index]) // 2
        parts[index : index + 1] = [parts[index][:middle], parts[index][middle:]]
    return parts


def _by_prompt(rows: Sequence[Row]) -> list[int]:
    return sorted(range(len(rows)), key=lambda place: rows[place].prompt)


def _fill(rows: Sequence[Row], order: Sequence[int], budget: int) -> list[list[int]]:
    """One after another, in order, each as full as `budget` allows."""
    parts: list[list[int]] = []
    room = 0
    for place in order:
        row = rows[place]
        starts = not parts or rows[parts[-1][-1]].prompt != row.prompt
        if parts and row.response_tokens + starts * row.prompt_tokens <= room:
            parts[-1].append(place)
            room -= row.response_tokens + starts * row.prompt_tokens
        else:
            parts.append([place])
            room = budget - row.prompt_tokens - row.response_tokens
    return parts


def _tokens(rows: Sequence[Row], part: Sequence[int]) -> int:
    prompts = {rows[place].prompt: rows[place].prompt_tokens for place in part}
    return sum(prompts.values()) + sum(rows[place].response_tokens for place in part)
