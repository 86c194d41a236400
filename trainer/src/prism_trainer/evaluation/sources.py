"""The files of a benchmark: a folder laid out as the public data set, one file, or `hf://datasets/OWNER/NAME`.

A stage works without network; only what fetches a data set of the hub has it, and where the hub does not answer, the cache will do.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path

from prism_trainer.contract.addresses import HUB
from prism_trainer.contract.configs import BenchmarkChoice
from prism_trainer.contract.job import DataSource
from prism_trainer.errors import DataError
from prism_trainer.evaluation.task import Task
from prism_trainer.hub.fetching import COMMAND, Waiting, fetch, patiently

SUFFIXES = (".parquet", ".jsonl", ".json")
"""In order of preference: where there are parquet files, the others repeat them."""


def find_sources(
    choice: BenchmarkChoice, task: Task, waiting: Waiting = patiently, command: Sequence[str] = COMMAND
) -> tuple[DataSource, ...]:
    """The files of the chosen split, in order; DataError where there are none."""
    patterns = _patterns(choice, task)
    uri = choice.uri or f"{HUB}{task.dataset}"
    if uri.startswith(HUB):
        folder = _from_hub(uri.removeprefix(HUB), choice.revision, patterns, waiting, command)
    elif "://" in uri:
        raise DataError(f"benchmark '{choice.name}': '{uri}' is not fetched; give a folder or {HUB}OWNER/NAME")
    else:
        folder = Path(uri)
    if folder.is_file():
        return (DataSource(uri=str(folder)),)
    files = next((found for suffix in SUFFIXES if (found := _matching(folder, patterns, suffix))), [])
    if not files:
        expected = " and ".join(f"{pattern}{SUFFIXES[0]}" for pattern in patterns)
        raise DataError(
            f"benchmark '{choice.name}': no file of split '{choice.split or task.default_split}' in '{folder}' (looked for {expected}, "
            f"also .jsonl and .json); lay the folder out as {task.dataset} is on the hub, or correct config.benchmarks[].uri"
        )
    return tuple(DataSource(uri=str(file)) for file in files)


def _patterns(choice: BenchmarkChoice, task: Task) -> tuple[str, ...]:
    split = choice.split or task.default_split
    if split not in task.splits:
        raise DataError(f"benchmark '{choice.name}' has no split '{split}'; take one of {', '.join(task.splits)}")
    return task.splits[split]


def _matching(folder: Path, patterns: Sequence[str], suffix: str) -> list[Path]:
    """Below the folder by path; files that lie directly in it also by the name alone."""
    found = []
    for file in sorted(folder.rglob(f"*{suffix}")):
        path = file.relative_to(folder).with_suffix("").as_posix()
        wanted = [*patterns, *(pattern.rpartition("/")[2] for pattern in patterns if "/" not in path)]
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in wanted):
            found.append(file)
    return found


def _from_hub(repository: str, revision: str | None, patterns: Sequence[str], waiting: Waiting, command: Sequence[str]) -> Path:
    wanted = [f"{pattern}{suffix}" for pattern in patterns for suffix in SUFFIXES[:1]]
    return fetch("benchmark", repository, revision, wanted, waiting=waiting, command=command, env={**os.environ, "HF_HUB_OFFLINE": "0"})
