"""A command's way to the API server: the official package's synchronous client, plain dictionaries, every failure a sentence.

The operator has a door of its own (`kube.door`), which counts, bounds and repeats; a person at a terminal repeats by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from prism_operator.errors import ClusterError
from prism_operator.kubectl.place import Place
from prism_operator.kubectl.refusals import UnreachableError, refusal

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
STREAM_SECONDS = 60.0
"""Of silence, after which a stream is taken up again: the connection may be dead."""
MERGE_PATCH = "application/merge-patch+json"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Door:
    """One cluster, as the kubeconfig describes it. `namespace`: the one asked for, else the context's."""

    def __init__(self, configuration: Configuration, namespace: str, cluster: str) -> None:
        configuration.retries = False
        if not configuration.verify_ssl:  # as the kubeconfig wants it; a warning a request helps nobody
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._client = ApiClient(configuration)
        self.namespace = namespace
        self.cluster = cluster

    @classmethod
    def open(cls, place: Place) -> Door:
        """Where kubectl would go. Without any kubeconfig, in a pod, to the pod's own cluster."""
        configuration = Configuration()
        files = str(place.kubeconfig or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser())
        found = [file for file in files.split(os.pathsep) if file and Path(file).expanduser().is_file()]
        if not found:
            return cls._in_pod(configuration, place, files)
        try:
            context = _context(files, place.context)
            config.load_kube_config(files, context["name"], configuration, persist_config=False)  # type: ignore[no-untyped-call]
        except yaml.YAMLError:  # whose words may quote the file, and a token stands in it
            raise ClusterError(f"the kubeconfig {files} cannot be used: it is not YAML") from None
        except (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ClusterError(f"the kubeconfig {files} cannot be used: {_first_line(error)}") from None
        namespace = place.namespace or (context.get("context") or {}).get("namespace") or "default"
        return cls(configuration, namespace, f"the cluster of context '{context['name']}' ({configuration.host})")

    @classmethod
    def _in_pod(cls, configuration: Configuration, place: Place, files: str) -> Door:
        if place.kubeconfig or place.context or not (_ACCOUNT / "token").is_file():
            raise ClusterError(f"there is no kubeconfig: {files} does not exist; set KUBECONFIG, or give --kubeconfig")
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            own = (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        except (ConfigException, OSError) as error:
            raise ClusterError(f"the pod's own account cannot be used: {_first_line(error)}") from None
        return cls(configuration, place.namespace or own, f"the pod's own cluster ({configuration.host})")

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """An object or a list."""
        return self._json("GET", path, query)

    def send(self, method: str, path: str, body: Mapping[str, Any], content_type: str = "application/json", **query: str) -> dict[str, Any]:
        """The object as the API server has it then."""
        return self._json(method, path, query, body, content_type)

    def stream(self, path: str, **query: str) -> Iterator[bytes]:
        """Chunks as they come. UnreachableError where the connection breaks, also after long silence."""
        response = self._answer("GET", path, query, None, "application/json", (CONNECT_SECONDS, STREAM_SECONDS))
        try:
            yield from response.stream(65536)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{self.cluster} broke off: {_cause(error)}") from None
        finally:
            response.close()

    def _json(
        self, method: str, path: str, query: Mapping[str, str], body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        response = self._answer(method, path, query, body, content_type, (CONNECT_SECONDS, READ_SECONDS))
        try:
            return dict(json.loads(response.data))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{self.cluster} broke off: {_cause(error)}") from None
        except (ValueError, TypeError):
            raise ClusterError(f"{self.cluster} answered {method} {path} with something that is not Kubernetes' JSON") from None

    def _answer(
        self, method: str, path: str, query: Mapping[str, str], body: Any, content_type: str, timeout: tuple[float, float]
    ) -> urllib3.BaseHTTPResponse:
        """Unread. Never shows headers: one of them is the token."""
        headers = {"Accept": "application/json", "User-Agent": "kubectl-prism", "Content-Type": content_type}
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            rest = self._client.rest_client
            response = rest.request(method, url, headers, body, _request_timeout=timeout).response  # type: ignore[no-untyped-call]
            if response.status >= 400:
                raise refusal(response.status, response.data.decode(errors="replace"), f"{method} {path}", self.cluster)
        except ApiException as error:  # the client's word for broken TLS
            raise UnreachableError(f"{self.cluster} cannot be trusted: {str(error.reason).splitlines()[-1]}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{self.cluster} cannot be reached: {_cause(error)}") from None
        except ConfigException as error:
            raise ClusterError(f"the credentials for {self.cluster} cannot be had: {_first_line(error)}") from None
        found: urllib3.BaseHTTPResponse = response
        return found


def _context(files: str, wanted: str | None) -> dict[str, Any]:
    contexts, current = config.list_kube_config_contexts(files)  # type: ignore[no-untyped-call]
    if wanted is None:
        return dict(current)
    for context in contexts:
        if context["name"] == wanted:
            return dict(context)
    raise ConfigException(f"it has no context '{wanted}'; known: {', '.join(sorted(context['name'] for context in contexts))}")


def _cause(error: BaseException) -> str:
    """The operating system's words, which stand at the bottom."""
    while isinstance(inner := error.__cause__ or error.__context__, OSError):
        error = inner
    return (error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)) or type(error).__name__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
