"""A run folder seen from outside: its status as of now, its logs. Reading only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism_operator.api import PrismRunStatus
from prism_operator.children import Children, Wishes
from prism_operator.decide import decide
from prism_operator.errors import BadRunError, NoSuchRunError
from prism_operator.local.attempts import read_attempt
from prism_operator.local.checkpoints import attempts_in, list_checkpoints
from prism_operator.local.files import LOG, STATUS
from prism_operator.local.folder import is_locked, read_object
from prism_operator.local.pins import pins_of
from prism_operator.names import BASE_DIR_ANNOTATION, stages_dir
from prism_operator.observed import observe
from prism_operator.parse import parse_run, read_status
from prism_operator.plan import Site, make_plan
from prism_operator.reasons import FINISHED
from prism_operator.source import read_source
from prism_operator.status import make_status

POLL_SECONDS = 0.3


def find_runs(target: Path) -> list[Path]:
    """The run folder itself, the one a PrismRun file names, or every run folder directly below."""
    if target.is_file():
        return [_folder_of(target)]
    if (target / STATUS).is_file():
        return [target.resolve()]
    below = sorted(path.parent.resolve() for path in target.glob(f"*/{STATUS}"))
    if not below:
        raise NoSuchRunError(f"no run in {target.absolute()}: neither it nor a folder below it has a {STATUS}; give a run folder or a file")
    return below


def one_run(target: Path) -> Path:
    """Where only one makes sense."""
    found = find_runs(target)
    if len(found) > 1:
        raise NoSuchRunError(f"{target} holds {len(found)} runs; name one: {', '.join(path.name for path in found)}")
    return found[0]


def _folder_of(file: Path) -> Path:
    parsed = parse_run(read_source(file.read_text(encoding="utf-8")).raw or {})
    local = parsed.run.spec.storage.local if parsed.run else None
    if local is None:
        raise NoSuchRunError(f"{file} names no run folder in spec.storage.local.path; see `prism validate {file}`")
    folder = Path(local.path).expanduser().resolve()
    if not (folder / STATUS).is_file():
        raise NoSuchRunError(f"{file} was not run yet: there is no {folder / STATUS}")
    return folder


def inspect_run(run_dir: Path) -> tuple[dict[str, Any], PrismRunStatus]:
    """As a runner last wrote it while one works here or the run is finished; else derived from what is there now."""
    document = read_object(run_dir)
    if document is None:
        raise NoSuchRunError(f"{run_dir / STATUS} cannot be read")
    written = read_status(document)
    if written is not None and (written.is_true(FINISHED) or written.summary == "Refused" or is_locked(run_dir)):
        return document, written
    try:
        return document, _derived(run_dir, document, written)
    except BadRunError:
        return document, written or PrismRunStatus(started_at=None, finished_at=None, checkpoint=None)


def _derived(run_dir: Path, document: dict[str, Any], written: PrismRunStatus | None) -> PrismRunStatus:
    """What a runner would say that was asked to stop: nobody carries anything out."""
    now = datetime.now(UTC)
    parsed = parse_run(document)
    if parsed.run is None:
        raise BadRunError(parsed.problems)
    base_dir = Path(parsed.run.metadata.annotations.get(BASE_DIR_ANNOTATION, ".")).absolute()
    pins, _ = pins_of(parsed.run, base_dir)
    plan = make_plan(parsed.run, Site(root_uri=str(run_dir), base_dir=str(base_dir), pins=pins))
    attempts = tuple(read_attempt(*found) for found in attempts_in(Path(stages_dir(str(run_dir)))))
    committed, unfinished, damaged = list_checkpoints(run_dir, plan.name)
    wishes = Wishes(since=now, interrupted=True)
    observed = observe(plan, Children(wishes, attempts, tuple(committed), tuple(unfinished), damaged=tuple(damaged)), written)
    return make_status(plan, observed, decide(plan, observed, now), written, now)


def find_log(run_dir: Path, stage: str | None, attempt: int | None) -> Path:
    """Of the named attempt, or of the last that wrote."""
    found = [
        (folder / LOG, name, number)
        for name, number, folder in attempts_in(Path(stages_dir(str(run_dir))))
        if (folder / LOG).exists() and stage in (None, name) and attempt in (None, number)
    ]
    if not found:
        wanted = f"stage '{stage}'" if stage else "any stage"
        raise NoSuchRunError(f"{run_dir} has no log of {wanted}{f', attempt {attempt}' if attempt else ''}")
    if stage is None:
        return max(found, key=lambda item: item[0].stat().st_mtime)[0]
    return max(found, key=lambda item: item[2])[0]


def read_log(log: Path, follow: bool) -> Iterator[str]:
    """All of it; followed, until its attempt is over and everything is read."""
    number = int(log.parent.name.rpartition("-")[2])
    with log.open(encoding="utf-8", errors="replace") as file:
        while True:
            over = not follow or not read_attempt(log.parent.parent.name, number, log.parent).alive
            text = file.read()
            if text:
                yield text
            if over:
                return
            if not text:
                time.sleep(POLL_SECONDS)
