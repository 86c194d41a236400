"""A real S3 server (versitygw, over a folder), and a proxy before it that fails on purpose. Tests import the fixtures they use."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.harness.build import build, program
from local_runs import wait_for


@dataclass(frozen=True)
class Bucket:
    """`folder` holds the objects as files, so that a test can damage them behind the server's back."""

    name: str
    folder: Path
    endpoint: str

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def file(self, uri: str) -> Path:
        return self.folder / uri.removeprefix(self.uri + "/")

    def names(self, below: str = "") -> list[str]:
        root = self.folder / below
        found = [Path(folder, file) for folder, _, files in os.walk(root) for file in files]  # folders may go while it looks
        return sorted(path.relative_to(root).as_posix() for path in found)


@pytest.fixture(scope="session")
def object_server(tmp_path_factory) -> Iterator[tuple[str, Path, Path]]:
    """Endpoint, the folder of its buckets, and a credentials file that it accepts."""
    folder = tmp_path_factory.mktemp("s3")
    access, secret = "tester", secrets.token_hex(16)
    credentials = folder / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_text(f"[default]\naws_access_key_id={access}\naws_secret_access_key={secret}\n")
    for name in ("buckets", "iam"):
        (folder / name).mkdir()
    port = free_port()
    command = [_versitygw(), "--quiet", "--port", f"127.0.0.1:{port}", "--iam-dir", folder / "iam", "posix", folder / "buckets"]
    env = {**os.environ, "ROOT_ACCESS_KEY_ID": access, "ROOT_SECRET_ACCESS_KEY": secret}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        wait_for(lambda: _answers(port))
        yield f"http://127.0.0.1:{port}", folder / "buckets", credentials
        server.kill()


@pytest.fixture
def bucket(object_server, monkeypatch) -> Bucket:
    """An empty one, and credentials for it in the environment."""
    endpoint, folder, credentials = object_server
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"bucket-{secrets.token_hex(4)}"
    (folder / name).mkdir()
    return Bucket(name, folder / name, endpoint)


def _versitygw() -> Path:
    try:
        return program("versitygw")
    except FileNotFoundError:
        if shutil.which("go") is None:
            pytest.skip("the S3 server of these tests is built with Go, which is not installed")
    build(("versitygw",))
    return program("versitygw")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def failing_proxy(endpoint: str, fails: Callable[[int, str, str], bool | str]) -> Iterator[str]:
    """Before `endpoint`: the requests for which `fails(number, method, path)` holds are answered 503, or 403 where it is the name of an
    error, or not at all where it raises."""
    target, numbers, lock = endpoint.removeprefix("http://"), [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                numbers[0] += 1
                number = numbers[0]
            try:
                failed = fails(number, self.command, self.path)
            except ConnectionError:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if failed:
                status, code = (403, failed) if isinstance(failed, str) else (503, "SlowDown")
                self._answer(status, [], f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode())
                return
            upstream = http.client.HTTPConnection(target)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("content-length", "transfer-encoding", "connection")]
            self._answer(answer.status, headers, content, answer.getheader("Content-Length"))
            upstream.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
