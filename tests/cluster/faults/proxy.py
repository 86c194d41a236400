"""A reverse proxy in front of the API server, for the operator under test alone: it counts what passes, and spoils it where a test says so.

The operator talks plain HTTP to it. The proxy lends it the identity of its own service account, so the rights of the chart hold.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from cluster.faults.api import Api, Object

WRITES = ("POST", "PUT", "PATCH", "DELETE")
HOP_BY_HOP = {"host", "authorization", "content-length", "transfer-encoding", "connection", "accept-encoding"}
_PLACE = re.compile(r"/namespaces/[^/]+/(?P<resource>[^/]+)(/(?P<name>[^/]+))?(/(?P<part>[^/]+))?$")


class Dropped(Exception):  # noqa: N818  (what a hook does to the connection)
    """Raised by a hook: the connection ends without an answer."""


@dataclass
class Passing:
    """A request on its way."""

    method: str
    path: str
    resource: str
    """`prismruns/status`, `rayclusters`, ..."""
    name: str
    write: int
    """Its number among the writes, from 1; 0 for one that only reads."""
    is_watch: bool
    body: bytes
    at: float
    answer: int = 0
    """HTTP status; 0 for none yet."""

    def __str__(self) -> str:
        return f"{self.method} {self.resource} {self.name} {self.answer}"


Before = Callable[[Passing], Awaitable[web.Response | None]]
"""An answer in place of the API server's; None lets the request pass."""
After = Callable[[Passing], Awaitable[web.Response | None]]
"""An answer in place of the one the API server has given."""


async def nothing(passing: Passing) -> None:
    """No fault."""


@dataclass
class Proxy:
    """`before` sees every request, `after` all that are no watches; they may raise `Dropped`."""

    api: Api
    identity: str
    """The user as which the operator's requests go on."""
    before: Before = nothing
    after: After = nothing
    watch_seconds: float | None = None
    """Watches are cut after this long, in the middle of an event."""
    log: list[Passing] = field(default_factory=list)
    num_writes: int = 0
    port: int = 0
    _generation: int = 0
    _broken: tuple[int, bytes] = (0, b"")
    """Watches of an earlier generation end with this event."""
    _runner: web.AppRunner | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, api: Api, identity: str) -> AsyncIterator[Proxy]:
        proxy = cls(api, identity)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", proxy._pass)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        try:
            yield proxy
        finally:
            await runner.cleanup()

    def write_kubeconfig(self, file: Path) -> Path:
        """For the operator; there is nothing secret in it."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "operator", "user": {"token": "none"}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
            "current-context": "proxy",
        }
        file.write_text(json.dumps(config))
        return file

    def heal(self) -> None:
        """No faults from now on, and the count of writes begins anew."""
        self.before = self.after = nothing
        self.watch_seconds = None
        self.num_writes = 0
        self.log.clear()

    def writes(self, resource: str = "", method: str = "") -> list[Passing]:
        """All, or those of a resource or method."""
        return [p for p in self.log if p.write and resource in ("", p.resource) and method in ("", p.method)]

    def stall_watches(self) -> None:
        """Those that are open now fall silent and stay open; new ones work."""
        self._generation += 1

    def break_watches(self, code: int, reason: str) -> None:
        """Those that are open now, stalled or not, end with an event that says so: 410 Expired, where their version is forgotten."""
        self._generation += 1
        error = {"type": "ERROR", "object": _status(code, reason, "spoiled by the test")}
        self._broken = self._generation, json.dumps(error).encode() + b"\n"

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        passing = self._note(request, await request.read())
        self.log.append(passing)
        try:
            spoiled = await self.before(passing)
            if passing.is_watch and not spoiled:
                return await self._watch(request)
            answer = spoiled or await self._forward(request, passing)
            passing.answer = answer.status
            return (None if spoiled else await self.after(passing)) or answer
        except (Dropped, aiohttp.ClientError) as error:
            raise _cut(request) from error

    def _note(self, request: web.Request, body: bytes) -> Passing:
        is_write = request.method in WRITES
        self.num_writes += is_write
        found = _PLACE.search(request.path)
        resource = "/".join(part for part in (found["resource"], found["part"]) if part) if found else request.path
        name = (found and found["name"]) or (json.loads(body)["metadata"].get("name", "") if request.method == "POST" and body else "")
        write = self.num_writes if is_write else 0
        return Passing(request.method, request.path, resource, name, write, "watch" in request.query, body, time.monotonic())

    async def _forward(self, request: web.Request, passing: Passing) -> web.Response:
        async with self._ask(request, passing.body) as response:
            kept = {key: value for key, value in response.headers.items() if key in ("Content-Type", "Retry-After")}
            return web.Response(status=response.status, body=await response.read(), headers=kept)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """Whole lines pass."""
        began, generation, rest = time.monotonic(), self._generation, b""
        async with self._ask(request, b"") as response:
            stream = web.StreamResponse(status=response.status, headers={"Content-Type": response.headers["Content-Type"]})
            await stream.prepare(request)
            while self._broken[0] <= generation:
                if self.watch_seconds is not None and time.monotonic() - began > self.watch_seconds:
                    await stream.write(b'{"type":"MODI')
                    raise Dropped
                with suppress(TimeoutError):
                    chunk = await asyncio.wait_for(response.content.readany(), 0.05)
                    if not chunk:
                        return stream
                    lines, _, rest = (rest + chunk).rpartition(b"\n")
                    if lines and self._generation == generation:
                        await stream.write(lines + b"\n")
            await stream.write(self._broken[1])
            return stream

    def _ask(self, request: web.Request, body: bytes) -> Any:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_BY_HOP}
        headers |= {"Authorization": f"Bearer {self.api.token}", "Impersonate-User": self.identity}
        headers |= {"Impersonate-Group": "system:serviceaccounts"}
        url = self.api.server + request.raw_path
        return self.api.session.request(request.method, url, data=body or None, headers=headers)


def refusal(status: int, reason: str, message: str = "spoiled by the test", **headers: str) -> web.Response:
    """As the API server spells it. `Retry_After="1"` makes that header."""
    told = {key.replace("_", "-"): value for key, value in headers.items()}
    return web.json_response(_status(status, reason, message), status=status, headers=told)


def _status(code: int, reason: str, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code}


def _cut(request: web.Request) -> BaseException:
    """Ends the connection as a crash would."""
    if request.transport is not None:
        request.transport.abort()
    return asyncio.CancelledError()
