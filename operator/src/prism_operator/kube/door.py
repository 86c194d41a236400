"""The one door to the API server: every request of the operator goes through here, counted, bounded and tried again where that is safe.

Bodies are plain dictionaries: the official client's models would be built only to be taken apart again.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.rest import RESTResponse

from prism_operator.errors import ClusterError
from prism_operator.kube import metrics
from prism_operator.names import FIELD_MANAGER, GROUP, PLURAL, VERSION

RUNS = f"/apis/{GROUP}/{VERSION}"
CLUSTERS = "/apis/ray.io/v1"
CORE = "/api/v1"

JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
TIMEOUT_SECONDS = 20.0
SILENT_SECONDS = 70.0
"""A watch that tells nothing for so long may be dead: the API server sends at least a bookmark a minute."""
SERVER_WATCH_SECONDS = 240
"""After which the API server ends a watch in peace."""
TRIES = 5
MAX_WAIT_SECONDS = 30.0


class ApiError(ClusterError):
    """A request that was refused. `status` is HTTP's."""

    def __init__(self, status: int, reason: str, message: str, what: str) -> None:
        super().__init__(f"{what}: {message} ({status} {reason})")
        self.status, self.reason, self.message = status, reason, message


class Door:
    """At most `max_writes` requests are in flight; more only queue in the API server."""

    def __init__(self, client: ApiClient, max_writes: int) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(max_writes)

    @classmethod
    async def open(cls, max_writes: int) -> Door:
        """With the pod's own account, else the kubeconfig of $KUBECONFIG."""
        configuration = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
        configuration.connection_pool_maxsize = 0  # no limit: the slots are one, and a watch keeps its connection
        configuration.client_session_kwargs = {"trust_env": False}  # else ~/.netrc is looked for, in a thread, before every request
        return cls(ApiClient(configuration), max_writes)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, api: str, namespace: str, resource: str, name: str) -> dict[str, Any] | None:
        """None where it does not exist."""
        try:
            return await self._call("GET", path(api, namespace, resource, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def metadata(self, api: str, resource: str, namespaces: Sequence[str], selector: str = "") -> list[dict[str, Any]]:
        """Of every object in these namespaces, or in all, as the API server's cache has it; none of their content.

        A kind that nobody has installed has no objects.
        """
        found: list[dict[str, Any]] = []
        query = urlencode({"resourceVersion": "0", **({"labelSelector": selector} if selector else {})})
        for place in places(api, namespaces, resource):
            try:
                listed = await self._call("GET", f"{place}?{query}", accept=METADATA_ONLY)
            except ApiError as error:
                if error.status != 404:
                    raise
                continue
            found.extend(item["metadata"] for item in listed.get("items") or [])
        return found

    async def list(self, api: str, namespace: str, resource: str, selector: str) -> list[dict[str, Any]]:
        """By label selector."""
        found = await self._call("GET", f"{path(api, namespace, resource)}?{urlencode({'labelSelector': selector})}")
        return list(found.get("items") or [])

    async def pages(self, where: str, selector: str, size: int) -> AsyncIterator[dict[str, Any]]:
        """A listing of one version, so many objects at a time. 410 says that it took too long for that."""
        query = {"labelSelector": selector, "limit": str(size)}
        while True:
            page = await self._call("GET", f"{where}?{urlencode(query)}")
            yield page
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return

    async def watch(self, where: str, selector: str, version: str) -> AsyncIterator[dict[str, Any]]:
        """Events after that version, until the API server ends the watch. ClusterError where it breaks off, or is silent for too long."""
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(SERVER_WATCH_SECONDS)}
        target = f"{where}?{urlencode({**query, 'labelSelector': selector, 'resourceVersion': version})}"
        try:
            answer = await self._send("GET", target, timeout=aiohttp.ClientTimeout(connect=TIMEOUT_SECONDS, sock_read=SILENT_SECONDS))
            async with answer.response as response:
                metrics.API_REQUESTS.labels("WATCH", str(answer.status)).inc()
                if answer.status >= 400:
                    await answer.read()
                    raise _refusal(ApiException(http_resp=answer), f"WATCH {where}")
                async for line in response.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClusterError(f"WATCH {where}: it broke off ({error!r})") from error

    async def create(self, api: str, namespace: str, resource: str, body: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """As the API server stored it. A create whose answer was lost is not repeated blindly: the name is taken then, and that is told."""
        query = "?dryRun=All" if dry_run else ""
        return await self._call("POST", path(api, namespace, resource) + query, body)

    async def patch(self, api: str, namespace: str, resource: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge patch; with `metadata.resourceVersion` in it only onto that version."""
        return await self._call("PATCH", path(api, namespace, resource, name), body, "application/merge-patch+json")

    async def apply_status(self, run: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply of the whole status, onto the version it was made from and no other."""
        metadata = {key: run["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": run["apiVersion"], "kind": run["kind"], "metadata": metadata, "status": status}
        where = path(RUNS, metadata["namespace"], PLURAL, metadata["name"]) + "/status"
        query = urlencode({"fieldManager": FIELD_MANAGER, "force": "true"})
        return await self._call("PATCH", f"{where}?{query}", body, "application/apply-patch+yaml")

    async def delete(
        self, api: str, namespace: str, resource: str, name: str, uid: str | None = None, grace_seconds: int | None = None
    ) -> None:
        """In the foreground: the object goes after what it owns. One that is gone, or another of its name, is no error."""
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", path(api, namespace, resource, name), body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _call(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """Refusals for the moment (429, 503) are waited out as the server asks; a lost connection only where repeating is harmless."""
        for attempt in range(1, TRIES + 1):
            try:
                return await self._once(method, where, body, content_type, accept)
            except ApiException as error:
                status = int(error.status or 0)
                if attempt == TRIES or status not in (429, 503):
                    raise _refusal(error, f"{method} {where.split('?')[0]}") from error
                await asyncio.sleep(_wait(error, attempt))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == TRIES or method == "POST":
                    raise ClusterError(f"{method} {where.split('?')[0]}: the API server cannot be reached ({error!r})") from error
                await asyncio.sleep(min(0.2 * 2**attempt, MAX_WAIT_SECONDS))
        raise AssertionError("the last try returns or raises")

    async def _once(self, method: str, where: str, body: Mapping[str, Any] | None, content_type: str, accept: str) -> dict[str, Any]:
        async with self._slots:
            response = await self._send(method, where, body, content_type, accept)
            data = await response.read()
        metrics.API_REQUESTS.labels(method, str(response.status)).inc()
        if response.status >= 400:
            raise ApiException(http_resp=response)
        return dict(json.loads(data))

    async def _send(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: float | aiohttp.ClientTimeout = TIMEOUT_SECONDS,
    ) -> RESTResponse:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], where, method, body)
        url = f"{self._client.configuration.host}{where}"
        response: RESTResponse = await self._client.rest_client.request(method, url, headers, body, _request_timeout=timeout)
        return response


def path(api: str, namespace: str, resource: str, name: str | None = None) -> str:
    """Of a namespaced resource."""
    return "/".join([api, "namespaces", quote(namespace), resource, *([quote(name)] if name else [])])


def places(api: str, namespaces: Sequence[str], resource: str) -> list[str]:
    """Of all its objects in these namespaces; with none, of those in all."""
    return [path(api, namespace, resource) for namespace in namespaces] or [f"{api}/{resource}"]


def _refusal(error: ApiException, what: str) -> ApiError:
    """The API server's own sentence, where it gave one."""
    text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    return ApiError(int(error.status or 0), status.get("reason", "") or str(error.reason), status.get("message", "") or text[:500], what)


def _wait(error: ApiException, attempt: int) -> float:
    """As long as Retry-After says, else a little longer each time."""
    asked = (error.headers or {}).get("Retry-After", "")
    return min(float(asked) if str(asked).isdecimal() else 0.25 * 2**attempt, MAX_WAIT_SECONDS)
