"""Progress on a port: `/progress` (JSON), `/metrics` (Prometheus), `/healthz`. Best effort: without it the stage works the same."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prism_trainer.contract.report import Progress
from prism_trainer.pod.board import Board

BIND_SECONDS = 1.0
"""Between tries: the containers of a pod share one address, and the stage before still serves on the port."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def serving(board: Board, run: str, port: int) -> Iterator[None]:
    """From when the port is free, to the end of the block."""
    done = threading.Event()
    thread = threading.Thread(target=_serve, args=(board, run, port, done), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _serve(board: Board, run: str, port: int, done: threading.Event) -> None:
    server = _bind(port, _handler(board, run), done)
    if server is None:
        return
    with server:
        listener = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        listener.start()
        done.wait()
        server.shutdown()


class _Server(ThreadingHTTPServer):
    """IPv4, and IPv6 where the pod has it."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _bind(port: int, handler: type[BaseHTTPRequestHandler], done: threading.Event) -> _Server | None:
    while not done.is_set():
        try:
            return _Server(("", port), handler)
        except OSError as error:
            log.debug("port %d: %s", port, error)
        done.wait(BIND_SECONDS)
    return None


def _handler(board: Board, run: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/progress":
                self._answer(200, "application/json", board.progress().model_dump_json(exclude_none=True))
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", metrics_text(board.progress(), run, datetime.now(UTC)))
            elif self.path == "/healthz":
                self._answer(200, "text/plain", "ok\n")
            else:
                self._answer(404, "text/plain", "expected /progress, /metrics or /healthz\n")

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent: a scrape is no news."""

    return Handler


def metrics_text(progress: Progress, run: str, now: datetime) -> str:
    """In Prometheus' text format."""
    labels = f'run="{_escaped(run)}",stage="{_escaped(progress.stage)}",attempt="{progress.attempt}"'
    ratio = min(1.0, progress.step / progress.total_steps) if progress.total_steps else 0.0
    age = max(0.0, (now - datetime.fromisoformat(progress.advanced_at)).total_seconds())
    lines = [
        *_gauge("progress_ratio", "Steps done of all steps; 0 while unknown.", [f"{{{labels}}} {ratio:g}"]),
        *_gauge("step", "Steps done.", [f"{{{labels}}} {progress.step}"]),
        *_gauge("heartbeat_age_seconds", "Since the last sign of work.", [f"{{{labels}}} {age:.3f}"]),
    ]
    if progress.metrics:
        samples = [f'{{{labels},name="{_escaped(name)}"}} {value!r}' for name, value in sorted(progress.metrics.items())]
        lines += _gauge("metric", "What the stage measured last, by name.", samples)
    return "\n".join(lines) + "\n"


def _gauge(name: str, help_text: str, samples: list[str]) -> list[str]:
    full = f"prism_trainer_{name}"
    return [f"# HELP {full} {help_text}", f"# TYPE {full} gauge", *(f"{full}{sample}" for sample in samples)]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
