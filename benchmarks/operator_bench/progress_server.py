"""Answers for all stages at once: `python -m benchmarks.operator_bench.progress_server`. Progress that goes on, and tells nothing new."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from aiohttp import web

from prism_trainer.contract.pod import PROGRESS_PORT
from prism_trainer.contract.report import Progress


async def answer(_: web.Request) -> web.Response:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = Progress(
        stage="sft", attempt=1, step=40, total_steps=400, eta_seconds=60.0, metrics={"loss": 0.5}, advanced_at=now, updated_at=now
    )
    return web.Response(text=told.model_dump_json(), content_type="application/json")


def main() -> None:
    """On every address of the loopback interface, and on no other."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listener.bind(("", PROGRESS_PORT))
    application = web.Application()
    application.add_routes([web.get("/progress", answer)])
    web.run_app(application, sock=listener, access_log=None, print=None)


if __name__ == "__main__":
    main()
