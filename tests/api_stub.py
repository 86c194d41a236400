"""An API server of a few objects, over real HTTP: what `kubectl prism` asks and is told, refusals and broken connections too."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

RUNS = "/apis/prism.dev/v1alpha1/namespaces/{}/prismruns"
TOKEN = "very-secret-token"
Answer = tuple[int, Any]


def status(code: int, reason: str, message: str, **details: Any) -> Answer:
    """As the API server refuses."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
    return code, {**body, "details": details}


@dataclass
class ApiStub:
    """Objects by path, logs by pod. `refuse` is asked first."""

    url: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, Callable[[], Iterator[bytes]]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    refuse: Callable[[str, str], Answer | None] = lambda method, path: None
    after_read: Callable[[str], None] = lambda path: None
    """Called with the path of each request for an object, after it was answered: the world goes on."""

    def put_run(self, raw: dict[str, Any], namespace: str = "team") -> dict[str, Any]:
        metadata = {"namespace": namespace, "generation": 1, "resourceVersion": "1", "uid": "u", **raw["metadata"]}
        stored = {**raw, "metadata": {"creationTimestamp": "2026-01-01T11:00:00Z", "managedFields": [{}], **metadata}}
        self.objects[f"{RUNS.format(namespace)}/{metadata['name']}"] = stored
        return stored

    def put_pod(self, name: str, labels: dict[str, str], states: dict[str, dict[str, Any]], phase: str = "Running") -> None:
        self.objects[f"/api/v1/namespaces/team/pods/{name}"] = {
            "metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T11:00:00Z"},
            "spec": {"containers": [{"name": container} for container in states]},
            "status": {
                "phase": phase,
                "containerStatuses": [{"name": container, "state": state} for container, state in states.items()],
            },
        }

    def sent(self, method: str) -> list[Any]:
        """Bodies."""
        return [body for verb, _, _, body in self.requests if verb == method]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        refused = self.refuse(method, path)
        if refused is not None:
            return refused
        if method == "GET":
            return self._read(path, query)
        dry = "dryRun" in query
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return status(409, "AlreadyExists", "it already exists")
            body = {**body, "metadata": {"creationTimestamp": "2026-01-01T12:00:00Z", **body["metadata"]}}
        elif method == "PATCH":
            old = self.objects[path]
            generation = old["metadata"]["generation"] + 1
            body = {**old, "metadata": {**old["metadata"], "generation": generation}, "spec": {**old["spec"], **body["spec"]}}
        if not dry:
            self.objects[path] = body
        return 200, body

    def _read(self, path: str, query: dict[str, str]) -> Answer:
        if path in self.objects:
            return 200, self.objects[path]
        parts = path.strip("/").split("/")
        if parts[-1] in ("prismruns", "pods"):
            inside = f"{path}/" if "namespaces" in parts else "/namespaces/"
            wanted = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
            found = [value for key, value in self.objects.items() if inside in key and f"/{parts[-1]}/" in key]
            return 200, {"items": [each for each in found if wanted.items() <= each["metadata"].get("labels", {}).items()]}
        return status(404, "NotFound", f'{parts[-2]} "{parts[-1]}" not found', name=parts[-1])


@contextmanager
def api_stub() -> Iterator[ApiStub]:
    """On a free port of the loopback."""
    stub = ApiStub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(file: Path, url: str, namespace: str = "team") -> Path:
    """Two contexts, `here` the current one."""
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": context}, {"name": "there", "context": {**context, "namespace": "other"}}],
    }
    file.write_text(yaml.safe_dump(document))
    return file


def _handler(stub: ApiStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            split = urlsplit(self.path)
            query = dict(parse_qsl(split.query))
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            stub.requests.append((self.command, split.path, query, body))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(*status(401, "Unauthorized", "Unauthorized"))
            elif split.path.endswith("/log") and split.path.split("/")[-2] in stub.logs:
                self._send_log(stub.logs[split.path.split("/")[-2]]())
            else:
                self._send(*stub.answer(self.command, split.path, query, body))
                stub.after_read(split.path)

        do_GET = do_POST = do_PATCH = do_PUT = _serve

        def _send(self, code: int, answer: Any) -> None:
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send_log(self, chunks: Iterator[bytes]) -> None:
            """In chunks; an exception in the middle is a connection that breaks."""
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for chunk in chunks:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except ConnectionResetError:
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
