"""What the trainer says of the first row of a run's data sets, asked once and before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prism_operator.api import PrismRun
from prism_operator.problems import Path as FieldPath
from prism_operator.problems import Problem
from prism_trainer.contract.addresses import hub_set

ASK_SECONDS = 60.0
ReadFirstRows = Callable[[Sequence[tuple[str, str]]], Sequence[str]]
"""Of sets given as kind of stage and path: a sentence each, "" where the row can be used."""


def first_row_problems(run: PrismRun, cwd: Path, read: ReadFirstRows) -> list[Problem]:
    """Of the sets that lie on this machine; the others are looked at when their stage has fetched them."""
    asked: list[tuple[FieldPath, str, str]] = []
    for index, stage in enumerate(run.spec.stages):
        for number, source in enumerate(stage.data if stage.checkpoint is None else ()):
            if "://" not in source.uri and hub_set(source.uri) is None:
                asked.append((("spec", "stages", index, "data", number, "uri"), stage.kind, str(cwd / source.uri)))
    sentences = read([(kind, uri) for _, kind, uri in asked]) if asked else ()
    return [Problem(path, sentence) for (path, _, _), sentence in zip(asked, sentences, strict=bool(sentences)) if sentence]


def ask_trainer(sets: Sequence[tuple[str, str]]) -> Sequence[str]:
    """In a process of its own, for the operator knows no data. Where it cannot answer the stage will: nothing is refused for that."""
    question = json.dumps([{"kind": kind, "uri": uri} for kind, uri in sets])
    command = [sys.executable, "-m", "prism_trainer.curation.first_rows"]
    try:
        answer = subprocess.run(command, input=question, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
        return [str(sentence) for sentence in json.loads(answer)]
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
