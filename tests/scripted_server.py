"""A real HTTP server that answers by a script: in order, the last answer for ever. It refuses, stalls and hangs up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from prism_operator.kube.door import Door


def refusal(status, reason, message, **headers):
    return says(json.dumps({"kind": "Status", "reason": reason, "message": message}), status=status, headers=headers)


def says(text, **fields):
    """An answer, made anew for each request."""
    return lambda: web.Response(text=text, **fields)


HANG_UP = object()


@dataclass
class Script:
    """Answers in order, the last one for ever; and what was asked."""

    answers: list
    asked: list = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            body = await request.read()
            self.asked.append((request.method, request.path_qs, request.headers.get("Content-Type"), json.loads(body) if body else None))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is HANG_UP:
                request.transport.close()
                return web.Response()
            made = answer() if callable(answer) else web.json_response(answer)
            return await made if asyncio.iscoroutine(made) else made
        finally:
            self.at_once -= 1


def knock(script, do, max_writes=4):
    """What `do(door)` gives, with the script behind the door."""

    async def run():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", script.answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        door = Door(ApiClient(configuration), max_writes)
        try:
            return await do(door)
        finally:
            await door.close()
            await runner.cleanup()

    return asyncio.run(run())
