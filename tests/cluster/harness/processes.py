"""The cluster's background processes: started with a name, remembered on disk, stopped by that name from any later process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.harness.commands import wait_until

# What this very process has started: kept, so that their ends are waited for and leave no zombies.
_CHILDREN: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Processes:
    """Processes of one cluster. `entrance` is put before every command: the way into the node's namespaces."""

    dir: Path
    entrance: tuple[str, ...] = ()

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
        """Starts in the background, output appended to `logs/<name>.log`; returns the process's id as this machine sees it."""
        for folder in ("logs", "pids"):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        command = [str(part) for part in argv]
        with self.log(name).open("ab") as log:
            started = subprocess.Popen(
                [*self.entrance, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        _CHILDREN.append(started)
        pid = _only_child(started) if self.entrance else started.pid
        record = {"pid": pid, "started": start_time(pid), "argv": command, "env": dict(env or {})}
        self._record(name).touch(mode=0o600)
        self._record(name).write_text(json.dumps(record))
        return pid

    def log(self, name: str) -> Path:
        return self.dir / "logs" / f"{name}.log"

    def names(self) -> list[str]:
        return sorted(file.stem for file in (self.dir / "pids").glob("*.json"))

    def pid(self, name: str) -> int | None:
        """Its process id, or None where it does not run (any more)."""
        if not self._record(name).exists():
            return None
        record = json.loads(self._record(name).read_text())
        return int(record["pid"]) if start_time(record["pid"]) == record["started"] else None

    def stop(self, name: str, with_signal: int = signal.SIGTERM, seconds: float = 15) -> None:
        """Ends it and waits until it is gone: by SIGKILL, when it is still there after `seconds`."""
        pid = self.pid(name)
        if pid is None:
            return
        os.kill(pid, with_signal)
        try:
            wait_until(lambda: self.pid(name) is None, name, seconds=seconds, every=0.05)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.pid(name) is None, f"{name} after SIGKILL", seconds=10, every=0.05)
        _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]

    def restart(self, name: str) -> int:
        """Starts it again as it was started before."""
        self.stop(name)
        record = json.loads(self._record(name).read_text())
        return self.start(name, record["argv"], record["env"])

    def stop_all(self) -> None:
        """Last started, first stopped: the API server goes when nobody talks to it any more."""
        files = sorted((self.dir / "pids").glob("*.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in files:
            self.stop(file.stem)

    def require(self, name: str) -> None:
        """Raises `RuntimeError` with the end of its log, where it has died."""
        if self.pid(name) is None:
            lines = self.log(name).read_text(errors="replace").splitlines()[-15:]
            raise RuntimeError(f"{name} has ended. The end of {self.log(name)}:\n" + "\n".join(lines))

    def _record(self, name: str) -> Path:
        return self.dir / "pids" / f"{name}.json"


def start_time(pid: int) -> str | None:
    """When the process with this id began, in the kernel's ticks; None for none, and for a dead one nobody has waited for."""
    try:
        # The second field is the command in parentheses, and may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _only_child(parent: subprocess.Popen[bytes]) -> int:
    """`nsenter` and `unshare` fork to enter a pid namespace: the program is their child."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split() if parent.poll() is None else []
        if children:
            return int(children[0])
        if parent.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"{parent.args!r} ended with status {parent.poll()} before its program began.")
