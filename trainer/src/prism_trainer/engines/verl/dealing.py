"""Which rank gets which responses: whole groups where their number allows, so that few ranks read the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from prism_trainer.engines.portions import deal


@dataclass(frozen=True)
class Group:
    """A prompt's responses, or some of them: their rows, and the tokens of each; the prompt's come to them once."""

    rows: Sequence[int]
    prompt_tokens: int
    response_tokens: Sequence[int]

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + sum(self.response_tokens)

    def split(self, pieces: int) -> list[Group]:
        """Into as many of equally many responses."""
        hands = deal(self.response_tokens, pieces)
        return [
            Group([self.rows[number] for number in hand], self.prompt_tokens, [self.response_tokens[number] for number in hand])
            for hand in hands
        ]


def deal_rows(groups: Sequence[Group], num_ranks: int) -> list[int]:
    """All rows, in an order whose equal parts are the ranks' shares, of about as many tokens to read.

    Every rank gets the same number of whole groups; what is left of the groups goes round in the greatest pieces that come out even. Groups
    have one size, and all rows come out even.
    """
    size, rest = len(groups[0].rows), len(groups) % num_ranks
    by_length = sorted(groups, key=lambda group: group.tokens)
    pieces = size // gcd(size, rest * size // num_ranks)
    wholes = sorted(_shares(by_length[rest:], num_ranks), key=_tokens)
    parts = sorted(_shares([piece for group in by_length[:rest] for piece in group.split(pieces)], num_ranks), key=_tokens, reverse=True)
    return [row for whole, part in zip(wholes, parts, strict=True) for group in (*whole, *part) for row in group.rows]


def _shares(groups: Sequence[Group], num_ranks: int) -> list[list[Group]]:
    return [[groups[place] for place in hand] for hand in deal([group.tokens for group in groups], num_ranks)]


def _tokens(groups: Sequence[Group]) -> int:
    return sum(group.tokens for group in groups)
