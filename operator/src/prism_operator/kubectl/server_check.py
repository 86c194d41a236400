"""`prism validate --server`: what the API server would say to a file, without storing anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from prism_operator.kubectl.door import Door
from prism_operator.kubectl.refusals import RefusedError
from prism_operator.kubectl.runs import runs_path
from prism_operator.problems import Path, Problem

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN = re.compile(r'unknown field "([^"]+)"')
_VALUE = re.compile(r'^Invalid value: (?:"(?:object|array)"|(?:\{.*\}|\[.*\])): ', re.DOTALL)


def server_problems(raw: dict[str, Any], door: Door, namespace: str | None) -> list[Problem]:
    """A dry run of create, or of update where it exists, with strict validation."""
    metadata = raw.get("metadata") or {}
    own = metadata.get("namespace")
    if namespace and own and namespace != own:
        return [Problem(("metadata", "namespace"), f"found '{own}', and --namespace is '{namespace}'; leave one of them out")]
    where = own or door.namespace
    document = {**raw, "metadata": {**metadata, "namespace": where}}
    try:
        _dry_run(door, document, where, str(metadata.get("name")))
    except RefusedError as error:
        if error.status not in (400, 403, 409, 422) or (error.status == 403 and error.message not in str(error)):
            raise
        return list(problems_of(error))
    return []


def _dry_run(door: Door, document: dict[str, Any], namespace: str, name: str) -> None:
    """Refused like the real thing, also by quotas, policies and webhooks."""
    existing = _existing(door, namespace, name)
    query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "kubectl-prism"}
    if existing is None:
        door.send("POST", runs_path(namespace), document, **query)
    else:
        metadata = {**existing["metadata"], **document["metadata"]}
        changed = {**existing, **document, "metadata": metadata, "status": existing.get("status", {})}
        door.send("PUT", runs_path(namespace, name), changed, **query)


def _existing(door: Door, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        return door.get(runs_path(namespace, name))
    except RefusedError as error:
        if error.status == 404 and error.reason:
            return None
        raise


def problems_of(error: RefusedError) -> Iterator[Problem]:
    """A path and a sentence each, as far as the API server tells a path."""
    unknown = _UNKNOWN.findall(error.message)
    for field in unknown:
        yield Problem(path_of(field), f"unknown key '{path_of(field)[-1]}'")
    if error.causes and not unknown:
        for cause in error.causes:
            yield Problem(path_of(cause.field), _sentence(cause.message))
    elif not unknown:
        yield Problem((), f"the API server refuses it: {error.message}")


def path_of(field: str) -> Path:
    """`spec.stages[0].config`; `<nil>` is the whole object."""
    return tuple(int(index) if index else name for name, index in _PART.findall(field) if name != "<nil>")


def _sentence(message: str) -> str:
    """A rule's own words, without the value of a whole object in front of them."""
    text = _VALUE.sub("", message)
    return text[:1].lower() + text[1:] if text[:2].istitle() else text
