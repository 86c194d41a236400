"""The operator under test, as a process of its own that can be killed at any moment and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class OperatorProcess:
    """`prism operator` of one namespace. Its log goes on over restarts."""

    namespace: str
    kubeconfig: Path
    log: Path
    process: asyncio.subprocess.Process | None = None
    num_starts: int = 0

    async def start(self) -> None:
        environment = {
            "PRISM_WATCH_NAMESPACES": self.namespace,
            "PRISM_METRICS_PORT": "0",
            "PRISM_HEALTH_PORT": "0",
            "PRISM_LOG_FORMAT": "text",
            "PRISM_LOG_LEVEL": "INFO",
            "KUBECONFIG": str(self.kubeconfig),
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PRISM_", "KUBE"))}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "prism_operator",
                "operator",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept | environment,
            )
        self.num_starts += 1

    def kill_at_once(self) -> None:
        """By SIGKILL; not one instruction of it follows."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def kill(self) -> None:
        """By SIGKILL, and until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """By SIGTERM; its exit code."""
        return await self._end(signal.SIGTERM)

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    def require(self) -> None:
        """Raises RuntimeError with the end of its log where it has ended by itself."""
        if self.process is not None and self.process.returncode is not None:
            raise RuntimeError(f"the operator has ended with {self.process.returncode}:\n{self.last_lines()}")

    def last_lines(self, count: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.exists() else ""

    async def _end(self, how: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(how)
        return await process.wait()
