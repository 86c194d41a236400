"""Are these two formulas equal? Asked of math-verify in another process, so that the answer comes in bounded time on any thread.

math-verify bounds its own time with signal alarms, which raise off the main thread; upstream swallowed that and scored zero (defect C8).
Here its limits are off. A judge owns one worker process, started at the first question, and waits for it under a lock; after a fork
(process pools) the child starts its own.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace

from prism_trainer.rewards.symbolic_worker import CUT, DIFFERENT, FAILED, READY, SAME

MAX_FORMULA_CHARS = 300
START_SECONDS = 120.0
GRACE_SECONDS = 5.0
REMEMBERED = 8192
_TOWER = re.compile(r"\^[^+\-=,;]{0,40}\^[^+\-=,;]{0,40}\^")
_LARGE_POWER = re.compile(r"\^\s*[({]*\s*-?\d{4,}")
_LARGE_FACTORIAL = re.compile(r"\d{4,}\s*[)}]*\s*!|!\s*[)}]*\s*!")
_LONG_NUMBER = re.compile(r"\d{60,}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SymbolicCounts:
    """What became of the questions so far. `cut_by_size` were never asked, `cut_by_time` were stopped, `unavailable` had nobody to ask."""

    same: int = 0
    different: int = 0
    failed: int = 0
    cut_by_size: int = 0
    cut_by_time: int = 0
    unavailable: int = 0
    remembered: int = 0


class SymbolicJudge:
    """Asks one worker process at a time; safe on any thread and after a fork. `seconds` bounds each comparison in wall time."""

    def __init__(self, seconds: float = 2.0) -> None:
        self.seconds = seconds
        self._worker: subprocess.Popen[bytes] | None = None
        self._counts = SymbolicCounts()
        self._verdicts: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._is_missing = False
        self._lock = threading.Lock()
        _JUDGES.add(self)

    @property
    def counts(self) -> SymbolicCounts:
        """Of this process."""
        return self._counts

    def same(self, left: str, right: str) -> bool:
        """True when math-verify proves `left` (LaTeX, without `$`) equal to `right`; False when it does not, or was cut."""
        with self._lock:
            key = (left, right) if left <= right else (right, left)
            verdict = self._verdicts.get(key)
            if verdict is not None:
                self._count("remembered")
                return verdict
            verdict = self._judge(*key)
            if verdict is not None:
                self._verdicts[key] = verdict
            if len(self._verdicts) > REMEMBERED:
                self._verdicts.popitem(last=False)
            return verdict is True

    def close(self) -> None:
        """End the worker. A later question starts another."""
        with self._lock:
            self._stop()

    def _judge(self, left: str, right: str) -> bool | None:
        """None where it is not known: cut by time or with nobody to ask, which depends on the machine's load and may go well next time."""
        if is_too_large(left) or is_too_large(right):
            self._count("cut_by_size")
            return False
        reply = self._ask(left, right)
        self._count({SAME: "same", DIFFERENT: "different", CUT: "cut_by_time", FAILED: "failed"}.get(reply, "unavailable"))
        return reply == SAME if reply in (SAME, DIFFERENT, FAILED) else None

    def _ask(self, left: str, right: str) -> bytes:
        if self._is_missing or not self._start():
            return b""
        request = json.dumps({"left": left, "right": right, "seconds": self.seconds}).encode()
        try:
            os.write(self._pipes[0], len(request).to_bytes(4, "big") + request)
            reply = self._read(self.seconds + GRACE_SECONDS)
        except BaseException as error:  # an answer that nobody read must not become the next question's
            self._stop()
            if isinstance(error, OSError):
                return b""
            raise
        if not reply:
            self._stop()
        return reply or CUT

    def _start(self) -> bool:
        if self._worker is not None:
            return True
        command = [sys.executable, "-m", "prism_trainer.rewards.symbolic_worker"]
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )
        if self._read(START_SECONDS) == READY:
            return True
        self._stop()
        self._is_missing = True
        _log.warning("math-verify does not load here, so formulas are judged by rules alone; install math-verify to have them compared")
        return False

    @property
    def _pipes(self) -> tuple[int, int]:
        assert self._worker and self._worker.stdin and self._worker.stdout
        return self._worker.stdin.fileno(), self._worker.stdout.fileno()

    def _read(self, seconds: float) -> bytes:
        """One reply; b"" when the worker is gone or silent for `seconds`."""
        output = self._pipes[1]
        poll = select.poll()
        poll.register(output, select.POLLIN)
        return os.read(output, 1) if poll.poll(seconds * 1000) else b""

    def _stop(self) -> None:
        """Ends the worker's session, its fork included."""
        worker = self._worker
        self._worker = None
        if worker is None:
            return
        _end_session(worker)
        _close_pipes(worker)
        worker.wait()

    def _count(self, what: str) -> None:
        self._counts = replace(self._counts, **{what: getattr(self._counts, what) + 1})

    def _forget(self) -> None:
        """As new: a fork's child may use neither its parent's worker nor a lock that another thread held."""
        worker = self._worker
        if worker is not None:
            worker.returncode = 0  # it is the parent's child; this process must not wait for it
            _close_pipes(worker)
        self._worker, self._lock, self._counts = None, threading.Lock(), SymbolicCounts()


def is_too_large(formula: str) -> bool:
    """Whether a formula is not worth asking about: long, or with powers and factorials that only a hostile answer has."""
    if len(formula) > MAX_FORMULA_CHARS:
        return True
    hard = (_TOWER, _LARGE_POWER, _LARGE_FACTORIAL, _LONG_NUMBER)
    return any(pattern.search(formula) for pattern in hard)


def _end_session(worker: subprocess.Popen[bytes]) -> None:
    """The worker leads a session of its own, so this reaches it and its fork and nothing else."""
    if worker.poll() is None:
        os.killpg(worker.pid, 9)


def _close_pipes(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe:
            pipe.close()


_JUDGES: weakref.WeakSet[SymbolicJudge] = weakref.WeakSet()


def _close_all() -> None:
    for judge in list(_JUDGES):
        judge.close()


def _forget_all() -> None:
    for judge in list(_JUDGES):
        judge._forget()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)
SHARED = SymbolicJudge()
"""The judge of this process, for callers that bring none."""
