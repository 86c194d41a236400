"""The World of one machine: what was decided, done with processes and files."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.children import AttemptRecord, Children, StopRequest, Wishes
from prism_operator.decide import StartAttempt, StopAttempt
from prism_operator.errors import RunFolderError
from prism_operator.local import processes
from prism_operator.local.attempts import read_attempt
from prism_operator.local.checkpoints import attempts_in, list_checkpoints
from prism_operator.local.files import JOB, LOG, PROCESS, STATUS, STOP, make_folder, read_value, write_atomically, write_value
from prism_operator.local.machine import Machine
from prism_operator.local.processes import ProcessRecord
from prism_operator.local.survey import survey
from prism_operator.names import checkpoints_uri, report_dir, stages_dir
from prism_operator.plan import RunPlan, Site
from prism_operator.timestamps import format_exact, from_timestamp
from prism_trainer.contract.checkpoint import MANIFEST
from prism_trainer.contract.environments import environment_of
from prism_trainer.contract.job import StageJob

STAGE_MODULE = ("-m", "prism_trainer")


@dataclass
class LocalWorld:
    """Holds nothing that is not in the run folder, but for handles of its own children and what it read before."""

    run_dir: Path
    document: dict[str, Any]
    wishes: Wishes
    machine: Machine
    command: Sequence[str] | None = None
    """Before the job file; by default the trainer, in the Python that has the stage's library."""
    _own: dict[Path, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ended: dict[Path, AttemptRecord] = field(default_factory=dict)
    _site: tuple[PrismRun, Site] | None = None
    _written: str = ""
    _undeletable: set[str] = field(default_factory=set)

    async def survey(self, run: PrismRun) -> Site:
        """Once per spec: what was there at the beginning may go later, when a stage no longer needs it."""
        if self._site is None or self._site[0] != run:
            self._site = (run, survey(run, self.run_dir, self.machine))
        return self._site[1]

    async def list_children(self, plan: RunPlan) -> Children:
        """As they are now; what has ended is written down on the way."""
        attempts = [self._attempt(*found) for found in attempts_in(Path(stages_dir(str(self.run_dir))))]
        committed, unfinished, damaged = list_checkpoints(self.run_dir, plan.name)
        return Children(self.wishes, tuple(attempts), tuple(committed), tuple(unfinished), damaged=tuple(damaged))

    async def start(self, plan: RunPlan, start: StartAttempt) -> None:
        """Job first, then the process, then its pid; whatever comes between, the attempt's number is taken."""
        job = start.job
        folder = Path(job.report_dir)
        make_folder(folder)
        make_folder(Path(job.output_uri))
        write_value(folder / JOB, job)
        try:
            child = processes.spawn(self._command(job), folder / JOB, folder / LOG, dict(start.env))
        except OSError as error:
            raise RunFolderError(f"cannot start stage '{job.stage}': {error}") from error
        self._own[folder] = child
        now = format_exact(datetime.now(UTC))
        write_value(
            folder / PROCESS,
            ProcessRecord(pid=child.pid, create_time=processes.create_time(child.pid), started_at=now, ended_at=None, exit_code=None),
        )

    async def stop(self, stop: StopAttempt) -> None:
        """The wish is written down before it is sent, so that an end that follows from it is never taken for a failure."""
        folder = Path(report_dir(str(self.run_dir), stop.stage, stop.number))
        process = read_value(folder / PROCESS, ProcessRecord)
        if process is None or not processes.is_alive(process, folder / JOB):
            return
        now = format_exact(datetime.now(UTC))
        asked = read_value(folder / STOP, StopRequest) or StopRequest(reason=stop.reason, requested_at=now, killed_at=None)
        if stop.kill and asked.killed_at is None:
            asked = asked.model_copy(update={"killed_at": now})
        write_value(folder / STOP, asked)
        if stop.kill:
            processes.kill_session(process.pid)
        else:
            processes.ask_to_stop(process.pid)

    async def release(self, ended: AttemptRecord) -> None:
        """An ended process holds nothing."""

    async def let_go(self) -> None:
        """A file is deleted by whoever owns it."""

    async def abandon(self) -> None:
        """No object, no deletion."""

    async def expire(self) -> None:
        """Refused by the survey."""

    async def delete(self, uri: str) -> None:
        """The manifest first: from then on it is no checkpoint, however far the deletion comes."""
        folder = Path(uri)
        if uri in self._undeletable or not folder.is_relative_to(checkpoints_uri(str(self.run_dir))):
            return
        try:
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)
        except OSError:
            self._undeletable.add(uri)

    async def write_status(self, status: PrismRunStatus) -> None:
        """The whole object, as `kubectl get -o json` would print it."""
        self.document["status"] = status.to_dict()
        text = json.dumps(self.document, indent=2, ensure_ascii=False)
        if text != self._written:
            write_atomically(self.run_dir / STATUS, text)
            self._written = text

    def _command(self, job: StageJob) -> Sequence[str]:
        environment = environment_of(job.engine, job.config.kind)
        return self.command or (self.machine.interpreter(environment).python, *STAGE_MODULE)

    def _attempt(self, stage: str, number: int, folder: Path) -> AttemptRecord:
        """What has ended does not change, and is read once. An end between the two looks is noted on the next round."""
        while folder not in self._ended:
            self._note_end(folder)
            record = read_attempt(stage, number, folder)
            if record.alive:
                return record
            if record.ended_at is not None or record.started_at is None:
                self._ended[folder] = record
        return self._ended[folder]

    def _note_end(self, folder: Path) -> None:
        """Reap a child of ours, or notice that a former runner's is gone; sweep what it left, and write down when it ended."""
        record = read_value(folder / PROCESS, ProcessRecord) or self._adopt(folder)
        if record is None or record.ended_at is not None:
            return
        child = self._own.get(folder)
        if child is not None:
            if not processes.has_ended(child):
                return
            processes.kill_session(child.pid)
            code = self._own.pop(folder).wait()
            self._write_end(folder, record, code, datetime.now(UTC))
        elif not processes.is_alive(record, folder / JOB):
            if processes.create_time(record.pid) == 0.0:
                processes.kill_session(record.pid)
            self._write_end(folder, record, None, _last_change(folder))

    def _adopt(self, folder: Path) -> ProcessRecord | None:
        """A process whose runner died before it wrote the pid down."""
        pid = processes.find(folder / JOB)
        if pid is None:
            return None
        created = processes.create_time(pid)
        record = ProcessRecord(
            pid=pid, create_time=created, started_at=format_exact(from_timestamp(created)), ended_at=None, exit_code=None
        )
        write_value(folder / PROCESS, record)
        return record

    def _write_end(self, folder: Path, record: ProcessRecord, exit_code: int | None, ended_at: datetime) -> None:
        write_value(folder / PROCESS, record.model_copy(update={"exit_code": exit_code, "ended_at": format_exact(ended_at)}))

    def close(self, patience_seconds: float) -> None:
        """Leave no process behind, whatever ended the runner."""
        for child in self._own.values():
            processes.ask_to_stop(child.pid)
        for folder, child in list(self._own.items()):
            try:
                child.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                processes.kill_session(child.pid)
                child.wait()
            del self._own[folder]


def _last_change(folder: Path) -> datetime:
    """The best guess at when a process nobody watched was last alive."""
    times = [folder.stat().st_mtime]
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return from_timestamp(max(times))
