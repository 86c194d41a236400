"""What a data set holds, and every row of it that could not be used: file, row and column, and what to do."""

from __future__ import annotations

import io
import os
import statistics
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from PIL import Image

from prism_trainer.contract.job import PRISM_SYSTEM_PROMPT, DataSource
from prism_trainer.data.formats import FORMATS, AnyRow, Format, format_of
from prism_trainer.data.rows import Demonstration, TaughtPrompt
from prism_trainer.data.sources import RawRow, files_of, scan_file
from prism_trainer.errors import DataError
from prism_trainer.responses import ParsedResponse, parse_response

ROWS_AT_ONCE = 64
CountTokens = Callable[[str], int]


@dataclass
class Findings:
    """Of one data set. `lengths` by what is measured, a number a row (of images, a number an image)."""

    uri: str
    format: str = ""
    num_rows: int = 0
    num_broken: int = 0
    broken: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, array[int]] = field(default_factory=dict)

    def note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1

    def measure(self, what: str, value: int) -> None:
        self.lengths.setdefault(what, array("Q")).append(value)

    def blame(self, error: DataError, shown: int) -> None:
        self.num_broken += 1
        if len(self.broken) < shown:
            self.broken.append(str(error))

    def summary(self) -> dict[str, Any]:
        """As JSON: a quantile each of everything measured."""
        lengths = {
            what: dict(zip(("min", "median", "p95", "max"), quantiles(values), strict=True)) for what, values in self.lengths.items()
        }
        return {
            **{"uri": self.uri, "format": self.format, "rows": self.num_rows, "broken": self.num_broken},
            **{"notes": self.notes, "lengths": lengths, "errors": self.broken},
        }


def check_set(source: DataSource, name: str | None, shown: int, count_tokens: CountTokens | None) -> Findings:
    """`name` of the format, else the first row tells. In memory are a few rows, and a few numbers for each row."""
    findings = Findings(source.uri)
    try:
        for uri in files_of(source):
            _check_file(uri, FORMATS[name] if name else None, findings, shown, count_tokens)
    except DataError as error:
        findings.blame(error, shown)
    if not findings.num_rows and not findings.num_broken:
        findings.blame(DataError(f"data set '{source.uri}' has no rows; give a file with at least one"), shown)
    return findings


def _check_file(uri: str, given: Format | None, findings: Findings, shown: int, count_tokens: CountTokens | None) -> None:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for rows in _windows(scan_file(uri)):
            sound = next((row for row in rows if isinstance(row, RawRow)), None)
            if given is None and sound is not None:
                given = format_of(uri, sound.columns)
            findings.format = given.name if given else findings.format
            for one in pool.map(partial(_read, given), rows):
                findings.num_rows += 1
                if isinstance(one, DataError):
                    findings.blame(one, shown)
                else:
                    _measure(one, findings, count_tokens)


def _windows(rows: Iterator[RawRow | DataError]) -> Iterator[list[RawRow | DataError]]:
    while window := list(islice(rows, ROWS_AT_ONCE)):
        yield window


def _read(known: Format | None, row: RawRow | DataError) -> AnyRow | DataError:
    if isinstance(row, DataError) or known is None:
        return row if isinstance(row, DataError) else row.fail("", "no format is known")
    try:
        return known.read(row)
    except DataError as error:
        return error


def _measure(row: AnyRow, findings: Findings, count_tokens: CountTokens | None) -> None:
    prompt = row.prompt
    findings.measure("question, characters", len(prompt.question))
    findings.measure("images", len(prompt.images))
    for image in prompt.images:
        width, height = Image.open(io.BytesIO(image)).size
        findings.measure("image width, pixels", width)
        findings.measure("image height, pixels", height)
        findings.measure("image, bytes", len(image))
    known = {None: "without a system prompt: the run's is used", PRISM_SYSTEM_PROMPT.strip(): "with PRISM's system prompt"}
    findings.note(known.get(prompt.system and prompt.system.strip(), "with another system prompt"))
    for writer, text, parsed in _responses(row):
        if parsed is None:
            findings.note("with a response that is not <caption><think><answer>: sft learns it as it is")
        else:
            for part in ("caption", "think", "answer"):
                findings.measure(f"{writer}'s {part}, characters", len(getattr(parsed, part).of(text).strip()))
        if count_tokens is not None:
            findings.measure(f"{writer}'s response, tokens", count_tokens(text))
    if not isinstance(row, Demonstration):
        findings.measure("answers that count as right", len(row.references))


def _responses(row: AnyRow) -> Iterator[tuple[str, str, ParsedResponse | None]]:
    if isinstance(row, Demonstration):
        yield "teacher", row.response, parse_response(row.response)
    if isinstance(row, TaughtPrompt):
        yield "teacher", row.teacher.text, row.teacher
        if row.student is not None:
            yield "student", row.student.text, row.student


def quantiles(values: Sequence[int]) -> tuple[int, int, int, int]:
    """Smallest, median, 95th of a hundred, largest."""
    ordered = sorted(values)
    return ordered[0], int(statistics.median_low(ordered)), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1]


def lines(findings: Findings) -> Iterator[str]:
    """For people."""
    stages = f", for {FORMATS[findings.format].stages}" if findings.format else ""
    yield f"{findings.uri}: {findings.format or 'unknown format'}{stages}; {findings.num_rows:,} rows, {findings.num_broken:,} broken"
    if findings.lengths:
        width = max(map(len, findings.lengths))
        yield f"  {'':{width}}  {'min':>9}  {'median':>9}  {'p95':>9}  {'max':>9}"
        for what, values in findings.lengths.items():
            yield f"  {what:{width}}  " + "  ".join(f"{value:>9,}" for value in quantiles(values))
    for what, count in findings.notes.items():
        yield f"  {count:,} {'row' if count == 1 else 'rows'} {what}"
    yield from (f"  {sentence}" for sentence in findings.broken)
    if len(findings.broken) < findings.num_broken:
        yield f"  and {findings.num_broken - len(findings.broken):,} more broken rows"
