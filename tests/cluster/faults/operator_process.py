"""The operator under test, as a process of its own that can be killed at any moment and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.harness.processes import Processes


@dataclass
class OperatorProcess:
    """`prism operator` of one namespace, among the control plane's processes, so that it ends with them. Its log goes on over restarts."""

    name: str
    namespace: str
    kubeconfig: Path
    processes: Processes
    pid: int = 0
    """0 where there is none."""
    killed: bool = False
    """By us, and not started again yet."""

    async def start(self) -> None:
        environment = {
            "PRISM_WATCH_NAMESPACES": self.namespace,
            "PRISM_METRICS_PORT": "0",
            "PRISM_HEALTH_PORT": "0",
            "PRISM_LOG_FORMAT": "text",
            "KUBECONFIG": str(self.kubeconfig),
        }
        self.killed = False
        self.pid = self.processes.start(self.name, [sys.executable, "-m", "prism_operator", "operator"], environment)

    def kill_at_once(self) -> None:
        """By SIGKILL; not one instruction of it follows."""
        self.killed = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """By SIGKILL, and until it is gone."""
        if self.pid:
            self.kill_at_once()
            await self.ended()

    async def stop(self) -> int | None:
        """By SIGTERM; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return await self.ended()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def ended(self) -> int | None:
        """Waits for its end; its exit code, negative for a signal, None where somebody else has asked for it before."""
        pid, self.pid = self.pid, 0
        with suppress(ChildProcessError):
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                await asyncio.sleep(0.01)
        return None

    def require(self) -> None:
        """Raises RuntimeError with the end of its log where it has ended by itself."""
        if self.pid and not self.killed:
            self.processes.require(self.name)

    def last_lines(self, count: int = 40) -> str:
        log = self.processes.log(self.name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else ""
