"""What a test does to the API server, and how it looks at it: a small client of the administrator, on one event loop."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

Object = dict[str, Any]
RESOURCES = {"prismruns": "/apis/prism.dev/v1alpha1", "rayclusters": "/apis/ray.io/v1", "leases": "/apis/coordination.k8s.io/v1"}
"""Prefix of each resource's address; all others are the core's."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Refused(Exception):  # noqa: N818  (what the API server said)
    """An answer of 400 and more: its status and its sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True)
class Api:
    """Addresses are `place(...)`."""

    session: aiohttp.ClientSession
    server: str
    token: str

    @classmethod
    @asynccontextmanager
    async def open(cls, kubeconfig: Path) -> AsyncIterator[Api]:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        plain = {"Accept-Encoding": "identity"}  # the proxy passes bodies on as they are
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=plain) as session:
            yield cls(session, cluster["server"], user["token"])
        await asyncio.sleep(0.05)  # TLS connections close a turn of the loop later, and complain when there is none

    async def get(self, where: str) -> Object | None:
        """None where there is none."""
        try:
            return await self._call("GET", where)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def list(self, where: str) -> list[Object]:
        return list((await self._call("GET", where))["items"] or ())

    async def create(self, where: str, body: Mapping[str, Any]) -> Object:
        return await self._call("POST", where, body)

    async def patch(self, where: str, body: Mapping[str, Any], kind: str = MERGE) -> Object:
        return await self._call("PATCH", where, body, kind)

    async def delete(self, where: str, **options: Any) -> None:
        """One that is gone already is no error, nor is another object of its name."""
        try:
            await self._call("DELETE", where, {"kind": "DeleteOptions", "apiVersion": "v1", **options})
        except Refused as refused:
            if refused.status not in (404, 409):
                raise

    async def events(self, where: str) -> AsyncIterator[tuple[str, Object]]:
        """What is there, as `LISTED`, and then what changes; ends when the API server ends it."""
        listed = await self._call("GET", where)
        kind = {"apiVersion": listed["apiVersion"], "kind": listed["kind"].removesuffix("List")}
        yield "BEGIN", listed
        for item in listed["items"] or ():
            yield "LISTED", {**kind, **item}
        query = f"?watch=1&timeoutSeconds=3600&resourceVersion={listed['metadata']['resourceVersion']}"
        async with self.session.get(self.server + where + query, headers=self.headers()) as response:
            async for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]

    def headers(self, **more: str) -> dict[str, str]:
        """Of a request as the administrator."""
        return {"Authorization": f"Bearer {self.token}", "Accept": "application/json", **more}

    async def _call(self, method: str, where: str, body: Mapping[str, Any] | None = None, kind: str = "application/json") -> Object:
        data = None if body is None else json.dumps(body).encode()
        headers = self.headers(**{"Content-Type": kind})
        async with self.session.request(method, self.server + where, data=data, headers=headers) as response:
            text = await response.read()
            answer: Object = json.loads(text)
            if response.status >= 400:
                raise Refused(response.status, answer.get("message", ""))
            return answer


def place(namespace: str, resource: str, name: str = "", part: str = "") -> str:
    """The address of objects, or of one."""
    path = f"{RESOURCES.get(resource, '/api/v1')}/namespaces/{namespace}/{resource}"
    return "/".join([path, *(each for each in (name, part) if each)])


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """A line may be longer than aiohttp's own reader takes."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
