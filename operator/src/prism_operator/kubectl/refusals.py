"""What the API server says no with, as sentences that say what to do. Pure: status and body in, an error out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from prism_operator.errors import ClusterError
from prism_operator.names import GROUP, PLURAL

_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)?'
)
_READING = ("get", "list", "watch")


@dataclass(frozen=True)
class Cause:
    """One of the things an object was refused for. `field` as the API server spells paths, or empty."""

    field: str
    message: str


class RefusedError(ClusterError):
    """A request that the API server refused. `status` is HTTP's, `reason` Kubernetes' word."""

    def __init__(self, sentence: str, status: int, reason: str = "", message: str = "", causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(sentence)
        self.status, self.reason, self.message, self.causes = status, reason, message, causes


class UnreachableError(ClusterError):
    """Nobody answers, or nobody can just now; a later try may succeed."""


def refusal(status: int, body: str, request: str, cluster: str) -> ClusterError:
    """`request` is the method and path, `cluster` the context and address: none of them holds a token."""
    told = _status_of(body)
    message = str(told.get("message") or "")
    reason = str(told.get("reason") or "")
    if status in (429, 503):
        return UnreachableError(f"{cluster} is overloaded or starting ({message or status}); try again in a moment")
    causes = tuple(Cause(str(c.get("field") or ""), str(c.get("message") or "")) for c in (told.get("details") or {}).get("causes") or ())
    return RefusedError(_sentence(status, told, message, request, cluster), status, reason, message, causes)


def _status_of(body: str) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and told.get("kind") == "Status" else {}


def _sentence(status: int, told: dict[str, Any], message: str, request: str, cluster: str) -> str:
    if status == 401:
        return f"{cluster} does not accept these credentials; they may have expired: log in again, or give another --context"
    if status == 403 and (match := _FORBIDDEN.search(message)):
        return _missing_right(match)
    if status == 404 and not told and f"/apis/{GROUP}/" in request:
        return (
            f"{cluster} does not know PrismRuns: the CustomResourceDefinition {PLURAL}.{GROUP} is not installed; "
            "install the chart (charts/prism), or give another --context"
        )
    return f"{request}: {message or 'no reason given'} ({status})"


def _missing_right(match: re.Match[str]) -> str:
    """Which verb on what, and the role that has it."""
    resource = f"{match['resource']}.{match['group']}" if match["group"] else match["resource"]
    where = f"in namespace '{match['namespace']}'" if match["namespace"] else "in all namespaces"
    role = "view" if match["verb"] in _READING else "edit"
    bind = "rolebinding" if match["namespace"] else "clusterrolebinding"
    scope = f" -n {match['namespace']}" if match["namespace"] else ""
    return (
        f"'{match['user']}' may not {match['verb']} {resource} {where}. The ClusterRole '{role}' allows it, to which the chart adds "
        f"PrismRuns; whoever may can give it: kubectl create {bind} NAME --clusterrole={role} --user={match['user']}{scope}"
    )
