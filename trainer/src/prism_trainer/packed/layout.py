"""Where prompts and responses lie in one packed row, and who sees whom.

    prompt 0 | prompt 1 | row 0 of prompt 0 | row 1 of prompt 0 | row 0 of prompt 1 | ...

A token sees what comes before it in its own segment and, in a row, the whole of its prompt: a tree of depth two. Prompts come first, so
that both kinds of seeing are of contiguous slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spans:
    """Pairs of a run of queries and the run of keys it may see: their lengths, and where each begins (N+1,) int32 on the device."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    query_starts: Tensor
    key_starts: Tensor

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], device: torch.device) -> Spans:
        return cls(tuple(queries), tuple(keys), _starts(queries, device), _starts(keys, device))


@dataclass(frozen=True)
class Layout:
    """`prompt_lengths` (P,) and `row_lengths` (R,), the rows grouped by prompt in the prompts' order.

    `within` is every segment with itself (causal), `across` all rows of a prompt with that prompt (all of it). `prompt_of_token` and
    `place_in_row` (tokens of rows,) say of each row token whose it is and how many of its row came before it.
    """

    prompt_lengths: tuple[int, ...]
    row_lengths: tuple[int, ...]
    prompt_of: tuple[int, ...]
    within: Spans
    across: Spans
    prompt_of_token: Tensor
    place_in_row: Tensor

    @classmethod
    def of(cls, prompt_lengths: Sequence[int], row_lengths: Sequence[int], prompt_of: Sequence[int], device: torch.device) -> Layout:
        if list(prompt_of) != sorted(prompt_of):
            raise ValueError(f"rows of prompts {list(prompt_of)} are not grouped by prompt; sort them before packing")
        per_prompt = [0] * len(prompt_lengths)
        for prompt, length in zip(prompt_of, row_lengths, strict=True):
            per_prompt[prompt] += length
        segments = [*prompt_lengths, *row_lengths]
        lengths = torch.tensor(row_lengths, dtype=torch.long)
        starts = torch.tensor([0, *accumulate(row_lengths)][:-1], dtype=torch.long)
        return cls(
            tuple(prompt_lengths),
            tuple(row_lengths),
            tuple(prompt_of),
            Spans.of(segments, segments, device),
            Spans.of(per_prompt, prompt_lengths, device),
            torch.tensor(prompt_of, dtype=torch.long).repeat_interleave(lengths).to(device),
            (torch.arange(sum(row_lengths)) - starts.repeat_interleave(lengths)).to(device),
        )

    @property
    def num_prompt_tokens(self) -> int:
        return sum(self.prompt_lengths)

    @property
    def row_starts(self) -> list[int]:
        """Where each row begins in the packed row."""
        return [self.num_prompt_tokens + start for start in [0, *accumulate(self.row_lengths)][:-1]]


def _starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device)
