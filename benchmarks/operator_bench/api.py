"""The benchmark's own client: creates, patches, deletes and watches as a user would, and notes when it saw what."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

RUNS = "/apis/prism.dev/v1alpha1/namespaces/bench/prismruns"
CLUSTERS = "/apis/ray.io/v1/namespaces/bench/rayclusters"
JOBS = "/apis/ray.io/v1/namespaces/bench/rayjobs"
PODS = "/api/v1/namespaces/bench/pods"
AT_ONCE = 16
"""Requests in flight; more only queue in the API server."""

_PARTIAL = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"


class Api:
    """As the administrator. All times are `time.perf_counter()` seconds."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session, self._server = session, server

    @classmethod
    @asynccontextmanager
    async def open(cls, kubeconfig: Path) -> AsyncIterator[Api]:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {user['token']}", "User-Agent": "prism-benchmark"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(ssl=tls, limit=0)) as session:
            yield cls(session, cluster["server"])

    async def create(self, path: str, body: Mapping[str, Any]) -> float:
        """When the API server accepted it."""
        await self._call("POST", path, body)
        return time.perf_counter()

    async def patch_status(self, path: str, body: Mapping[str, Any]) -> float:
        """A strategic merge patch; when the API server accepted it."""
        await self._call("PATCH", f"{path}/status", body, "application/strategic-merge-patch+json")
        return time.perf_counter()

    async def merge(self, path: str, body: Mapping[str, Any]) -> float:
        """A merge patch; when the API server accepted it."""
        await self._call("PATCH", path, body, "application/merge-patch+json")
        return time.perf_counter()

    async def delete_all(self, path: str, selector: str = "") -> None:
        query = f"?labelSelector={selector}" if selector else ""
        await self._call("DELETE", path + query, {"propagationPolicy": "Background"})

    async def names(self, path: str, query: str = "") -> list[str]:
        """Of the objects there."""
        listed = await self._call("GET", f"{path}?{query}", accept=_PARTIAL.format("List"))
        return [item["metadata"]["name"] for item in listed["items"] or ()]

    async def objects(self, path: str) -> list[dict[str, Any]]:
        return list((await self._call("GET", path))["items"] or ())

    @asynccontextmanager
    async def watch(self, path: str, observe: Callable[[float, str, dict[str, Any]], None], whole: bool = False) -> AsyncIterator[None]:
        """From now on: time, ADDED, MODIFIED or DELETED, and the object's metadata, or the whole of it."""
        listed = await self._call("GET", f"{path}?limit=1", accept=_PARTIAL.format("List"))
        query = f"?watch=1&timeoutSeconds=7200&resourceVersion={listed['metadata']['resourceVersion']}"
        accept = "application/json" if whole else _PARTIAL.format("")
        async with self._session.get(self._server + path + query, headers={"Accept": accept}) as response:
            response.raise_for_status()
            reader = asyncio.create_task(_read(response, observe))
            try:
                yield
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": accept}
        async with self._session.request(method, self._server + path, data=data, headers=headers) as response:
            text = await response.read()
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status}: {text.decode(errors='replace')[:500]}")
            return dict(json.loads(text))


async def _read(response: aiohttp.ClientResponse, observe: Callable[[float, str, dict[str, Any]], None]) -> None:
    rest = b""
    async for chunk in response.content.iter_any():
        now = time.perf_counter()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            observe(now, event["type"], event["object"])


async def until(true: Callable[[], bool], what: str, seconds: float = 120.0, every: float = 0.005) -> None:
    """Raises TimeoutError, which says what did not come true."""
    deadline = time.perf_counter() + seconds
    while not true():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{what}: not so after {seconds:.0f} s")
        await asyncio.sleep(every)


async def in_parallel(calls: Iterable[Callable[[], Any]], at_once: int = AT_ONCE) -> list[Any]:
    """Their answers, in order."""
    slots = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Any]) -> Any:
        async with slots:
            return await call()

    return list(await asyncio.gather(*(one(call) for call in calls)))


async def paced(calls: Iterable[Callable[[], Any]], per_second: float) -> list[Any]:
    """One after another at a steady rate, whether or not the one before has been answered."""
    tasks, start = [], time.perf_counter()
    for index, call in enumerate(calls):
        await asyncio.sleep(max(0.0, start + index / per_second - time.perf_counter()))
        tasks.append(asyncio.ensure_future(call()))
    return list(await asyncio.gather(*tasks))
