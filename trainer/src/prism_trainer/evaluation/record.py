"""Every answer as soon as it is there: a line in the attempt's `samples.jsonl`, read again by the attempt that goes on.

An attempt writes its own file only, and reads those of the attempts before it. The first line says what the answers were given to; a file
that says something else (other data, another checkpoint, another configuration) is left alone. A line that was cut by a kill is no line.
Texts stay on disk: seven benchmarks with several seeds and checkpoints are gigabytes of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from prism_trainer.contract.results import EVALUATION_SAMPLES, EvaluationSample
from prism_trainer.errors import StorageError

Key = tuple[str, str, str, int]
"""Stage, benchmark, prompt and seed."""


@dataclass(frozen=True)
class _Kept:
    """An answer without its texts, and the line that has them."""

    sample: EvaluationSample
    file: Path
    start: int
    size: int


class SampleRecord:
    """Answers by key."""

    def __init__(self, file: Path, identity: str, earlier: Iterable[Path] = ()) -> None:
        self._file, self._head = file, json.dumps({"answers_to": identity}).encode() + b"\n"
        self._kept: dict[Key, _Kept] = {}
        for path in (*earlier, file):
            self._kept |= {key_of(one.sample): one for one in self._read(path)}
        self._prepare()

    @classmethod
    def open(cls, report_dir: Path, identity: str, resumed: Path | None = None) -> SampleRecord:
        """The record of the attempt that reports to `report_dir`; `resumed` is a folder with a copy that came with a checkpoint."""
        copies = [] if resumed is None else [resumed / EVALUATION_SAMPLES]
        others = [folder / EVALUATION_SAMPLES for folder in sorted(report_dir.parent.glob("attempt-*")) if folder != report_dir]
        return cls(report_dir / EVALUATION_SAMPLES, identity, [*copies, *others])

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, key: Key) -> EvaluationSample:
        """Without its texts."""
        return self._kept[key].sample

    def add(self, samples: Iterable[EvaluationSample]) -> None:
        """Those that are not there yet; written when this returns."""
        self.put(sample for sample in samples if key_of(sample) not in self._kept)

    def put(self, samples: Iterable[EvaluationSample]) -> None:
        """In the place of what is there: the last line of a key holds."""
        new = {key_of(sample): sample for sample in samples}
        lines = [sample.model_dump_json(exclude_defaults=True).encode() + b"\n" for sample in new.values()]
        start = self._append(b"".join(lines))
        for (key, sample), line in zip(new.items(), lines, strict=True):
            self._kept[key] = _Kept(_slim(sample), self._file, start, len(line))
            start += len(line)

    def of(self, stage: str, benchmark: str) -> list[EvaluationSample]:
        """All answers of one checkpoint to one benchmark, without their texts, in an order that does not depend on interruptions."""
        found = [one.sample for key, one in self._kept.items() if key[:2] == (stage, benchmark)]
        return sorted(found, key=lambda sample: (sample.seed, sample.prompt_id))

    def whole(self, key: Key) -> EvaluationSample:
        """One answer with its texts."""
        return EvaluationSample.model_validate_json(_line(self._kept[key]))

    def save(self, folder: Path, *, with_head: bool) -> None:
        """All answers with their texts, in a fixed order. With its head the file can be gone on from."""
        with (folder / EVALUATION_SAMPLES).open("wb") as out:
            out.write(self._head if with_head else b"")
            for key in sorted(self._kept):
                out.write(_line(self._kept[key]))

    def _prepare(self) -> None:
        """A file of other answers is begun anew; what a kill cut short is ended, so that the next line is one of its own."""
        try:
            content = self._file.read_bytes() if self._file.is_file() else b""
        except OSError:
            content = b""
        if not content.startswith(self._head):
            self._append(self._head, "wb")
        elif not content.endswith(b"\n"):
            self._append(b"\n")

    def _append(self, content: bytes, mode: str = "ab") -> int:
        """Where in the file it begins."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open(mode) as file:
                start = file.tell()
                file.write(content)
                return start
        except OSError as error:
            sentence = f"answers cannot be written to '{self._file}' ({error}); correct that and run again: what is there is kept"
            raise StorageError(sentence) from error

    def _read(self, file: Path) -> Iterator[_Kept]:
        if not file.is_file():
            return
        with file.open("rb") as lines:
            if lines.readline() != self._head:
                return
            start = len(self._head)
            for line in lines:
                with contextlib.suppress(ValidationError):
                    yield _Kept(_slim(EvaluationSample.model_validate_json(line)), file, start, len(line))
                start += len(line)


def key_of(sample: EvaluationSample) -> Key:
    return sample.stage, sample.benchmark, sample.prompt_id, sample.seed


def _slim(sample: EvaluationSample) -> EvaluationSample:
    return sample.model_copy(update={"response": "", "question": ""})


def _line(one: _Kept) -> bytes:
    with one.file.open("rb") as file:
        file.seek(one.start)
        return file.read(one.size).rstrip(b"\n") + b"\n"
