"""The subset that reinforcement learning can learn from: prompts that the policy answers neither always nor never.

The paper keeps, of 6K prompts held out from sft, those with a pass rate of 0.2 to 0.8 over 16 responses: about 2K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prism_trainer.contract.job import DataSource
from prism_trainer.curation.journal import Journal
from prism_trainer.curation.sampler import LEARNT_ELSEWHERE, Drawing, Sampler, describe_drawing
from prism_trainer.data.dataset import Rows, open_verifiable
from prism_trainer.data.rows import VerifiablePrompt
from prism_trainer.data.sources import digest_sources
from prism_trainer.data.writers import FILTERED, verifiable_columns, write_parquet
from prism_trainer.errors import DataError
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.answers import answers_match

Told = Callable[[int, int, str], None]
"""Rows done, rows in all, and what was found so far."""


def filter_by_pass_rate(
    sources: Sequence[DataSource], policy: Path, out: Path, drawing: Drawing, band: tuple[float, float], device: Any, told: Told
) -> int:
    """Write the rows whose pass rate lies in `band`, both ends included; how many. What was sampled is kept beside `out`."""
    rows = open_verifiable(sources)
    made_from = {**describe_drawing(policy, drawing), "data": list(digest_sources(tuple(sources)).values())}
    journal = Journal(journal_file(out), made_from)
    rates = [right / drawing.count for entry in journal.entries for right in entry["right"]]
    sampler = Sampler(policy, drawing, device) if len(rates) < len(rows) else None
    while sampler is not None and len(rates) < len(rows):
        first = len(rates)
        batch = rows[first : first + drawing.rows_at_once]
        right = [count_right(row, given) for row, given in zip(batch, sampler.draw([row.prompt for row in batch], first), strict=True)]
        journal.add({"right": right})
        rates += [one / drawing.count for one in right]
        told(len(rates), len(rows), f"{sum(map(_inside(band), rates)):,} kept, mean pass rate {sum(rates) / len(rates):.2f}")
    if not any(map(_inside(band), rates)):
        mean = sum(rates) / len(rates)
        way = "give other bounds or rows" if mean else f"{LEARNT_ELSEWHERE}, or give rows that it can answer"
        raise DataError(f"none of {len(rows)} rows has a pass rate from {band[0]} to {band[1]} (mean {mean:.2f}); {way}")
    return write_parquet(out, FILTERED, _kept(rows, rates, band))


def count_right(row: VerifiablePrompt, responses: Sequence[ParsedResponse | None]) -> int:
    """As in training: right is right in the right format."""
    return sum(one is not None and answers_match(one.answer.of(one.text).strip(), row.references) for one in responses)


def journal_file(out: Path) -> Path:
    """Beside the output: other bounds need no other samples."""
    return out.with_name(f"{out.name}.samples.jsonl")


def _inside(band: tuple[float, float]) -> Callable[[float], bool]:
    return lambda rate: band[0] <= rate <= band[1]


def _kept(rows: Rows[VerifiablePrompt], rates: Sequence[float], band: tuple[float, float]) -> Iterator[dict[str, Any]]:
    for number, rate in enumerate(rates):
        if _inside(band)(rate):
            yield verifiable_columns(rows[number]) | {"pass_rate": rate}
