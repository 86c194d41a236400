"""`prism run`: reconcile on a short tick until the run ends or is asked to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.children import Wishes
from prism_operator.decide import Phase
from prism_operator.errors import BadRunError
from prism_operator.local.attempts import read_attempt
from prism_operator.local.checkpoints import attempts_in
from prism_operator.local.files import SPEC, write_atomically
from prism_operator.local.folder import locked, next_document, read_object, refuse_foreign
from prism_operator.local.machine import Machine
from prism_operator.local.results import publish_results
from prism_operator.local.survey import survey
from prism_operator.local.world import LocalWorld
from prism_operator.names import stages_dir
from prism_operator.parse import parse_run
from prism_operator.plan import make_plan
from prism_operator.reconcile import reconcile
from prism_operator.timestamps import format_time

TICK_SECONDS = 0.2
PATIENCE_SECONDS = 30.0
"""For a stage to stop when the runner itself fails; a wished stop takes deadlines.stopGraceSeconds."""

ENDS = (Phase.SUCCEEDED, Phase.FAILED, Phase.REFUSED, Phase.SUSPENDED, Phase.STOPPED)


@dataclass(frozen=True)
class Ended:
    """How `prism run` ended."""

    phase: Phase
    status: PrismRunStatus
    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        """0 only for a run that is complete; 130 and 143 as shells have it for Ctrl-C and SIGTERM."""
        if self.phase is Phase.SUCCEEDED:
            return 0
        return 128 + self.signal_number if self.phase is Phase.STOPPED and self.signal_number else 1


@dataclass
class Signals:
    """What was asked of the runner so far."""

    first: int | None = None
    count: int = 0

    def receive(self, number: int, _frame: object) -> None:
        """The first asks to save and stop, the second kills."""
        self.first = self.first or number
        self.count += 1


def run_locally(
    raw: dict[str, Any],
    text: str,
    run_dir: Path,
    machine: Machine,
    redo: bool = False,
    show: Callable[[PrismRunStatus], None] = lambda status: None,
    command: Sequence[str] | None = None,
) -> Ended:
    """Until the end. `raw` has passed the schema; `text` is the file it came from."""
    name = str(raw["metadata"]["name"])
    refuse_unrunnable(raw, run_dir, machine)
    with locked(run_dir):
        stored = read_object(run_dir)
        refuse_foreign(run_dir, stored, name)
        now = datetime.now(UTC)
        wishes = Wishes(since=now, reopen=True, redo=redo, forgiven=_forgiven(run_dir))
        world = LocalWorld(run_dir, next_document(raw, stored, machine.cwd, format_time(now)), wishes, machine, command)
        write_atomically(run_dir / SPEC, text)
        with _listening() as signals:
            try:
                return asyncio.run(_loop(world, signals, show))
            finally:
                world.close(PATIENCE_SECONDS)


def refuse_unrunnable(raw: dict[str, Any], run_dir: Path, machine: Machine) -> PrismRun:
    """BadRunError before anything is written."""
    parsed = parse_run(raw)
    if parsed.run is None or parsed.problems:
        raise BadRunError(parsed.problems)
    make_plan(parsed.run, survey(parsed.run, run_dir, machine))
    return parsed.run


def _forgiven(run_dir: Path) -> dict[str, int]:
    """By stage the last attempt that was over when this invocation began."""
    forgiven: dict[str, int] = {}
    for stage, number, folder in attempts_in(Path(stages_dir(str(run_dir)))):
        if not read_attempt(stage, number, folder).alive:
            forgiven[stage] = max(number, forgiven.get(stage, 0))
    return forgiven


async def _loop(world: LocalWorld, signals: Signals, show: Callable[[PrismRunStatus], None]) -> Ended:
    published: list[str] = []
    while True:
        world.wishes = replace(world.wishes, interrupted=signals.count > 0, impatient=signals.count > 1)
        done = await reconcile(world.document, world, datetime.now(UTC))
        if done.decision is None:
            raise BadRunError(done.problems)
        show(done.status)
        committed = [stage.checkpoint.uri for stage in done.status.stages if stage.checkpoint is not None]
        if committed != published:
            publish_results(world.run_dir, done.status)
            published = committed
        if done.decision.phase in ENDS:
            return Ended(done.decision.phase, done.status, signals.first)
        await asyncio.sleep(0.0 if done.decision.start or done.decision.deletes else TICK_SECONDS)


@contextmanager
def _listening() -> Iterator[Signals]:
    """Handlers that only take note: the next pass acts."""
    signals = Signals()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signals.receive) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
