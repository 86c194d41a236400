"""A small real HTTP server that speaks the chat-completions protocol, for tests of the judge."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], Any]
"""From the told case to: a text, an HTTP status, (status, headers), bytes to send as they are, or None to hang up without a word."""


class JudgeServer:
    """A context. `asked` are the cases it was told, `bodies` and `headers` the whole requests."""

    def __init__(self, *answers: Answer) -> None:
        """The first answer to the first request and so on; the last one to all others."""
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._answers, self._lock, self._now = answers, threading.Lock(), 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Any:
        case = json.loads(body["messages"][-1]["content"])
        with self._lock:
            answer = self._answers[min(len(self.asked), len(self._answers) - 1)]
            self.asked.append(case)
            self.bodies.append(body)
            self.headers.append(headers)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            return answer(case)
        finally:
            with self._lock:
                self._now -= 1

    def _handler(judge) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1/chat/completions"
                given = judge.take(body, {name.lower(): value for name, value in self.headers.items()})
                if given is None:
                    self.close_connection = True
                    return
                status, headers, content = _reply(given)
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _reply(given: Any) -> tuple[int, dict[str, str], bytes]:
    match given:
        case int():
            return given, {}, b'{"error": {"message": "key sk-told-by-the-server is not enough"}}'
        case (status, headers):
            return status, headers, b"{}"
        case bytes():
            return 200, {}, given
        case _:
            message = {"role": "assistant", "content": given}
            return 200, {"content-type": "application/json"}, json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


def says(text: Any) -> Answer:
    return lambda _: text


def slowly(seconds: float, text: str) -> Answer:
    def answer(_: dict[str, Any]) -> str:
        time.sleep(seconds)
        return text

    return answer
