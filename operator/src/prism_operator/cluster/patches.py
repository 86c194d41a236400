"""A user's podTemplate laid over a pod of ours: maps merge, lists of named things merge by name, null removes, other lists replace.

A volume may be mounted twice, so mounts go by their path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_operator.names import STAGE_CONTAINER


def patched(pod: dict[str, Any], patches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A patch's container `stage` stands for the stage's own container, whatever its name. Containers the pod lacks are left out unless
    they have an image: a patch for `ray-worker` says nothing about the head."""
    for patch in patches:
        pod = _merge(pod, _named(patch, pod))
    return pod


def _named(patch: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, Any]:
    containers = (patch.get("spec") or {}).get("containers")
    if not isinstance(containers, list):
        return dict(patch)
    own = [container["name"] for container in pod["spec"]["containers"]]
    named = []
    for container in containers:
        stages = [name for name in own if name.startswith(f"{STAGE_CONTAINER}-")]
        targets = stages if container.get("name") == STAGE_CONTAINER else [container.get("name")]
        named += [{**container, "name": target} for target in targets if target in own or "image" in container]
    spec = {key: value for key, value in patch["spec"].items() if key != "containers"}
    return {**patch, "spec": {**spec, "containers": named} if named else spec}


def _merge(base: Any, patch: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(patch, Mapping):
        merged = {key: _merge(value, patch[key]) if key in patch else value for key, value in base.items()}
        merged |= {key: _fresh(value) for key, value in patch.items() if key not in base}
        return {key: value for key, value in merged.items() if value is not None}
    if _is_named(base) and _is_named(patch):
        return _merge_lists(base, patch)
    return _fresh(patch)


def _fresh(value: Any) -> Any:
    """What is new: there is nothing in it that a null could remove."""
    if isinstance(value, Mapping):
        return {key: _fresh(item) for key, item in value.items() if item is not None}
    return [_fresh(item) for item in value] if isinstance(value, list) else value


def _is_named(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in value)
    )


def _name(item: Mapping[str, Any]) -> Any:
    return item.get("mountPath", item["name"])


def _merge_lists(base: list[Any], patch: list[Any]) -> list[Any]:
    """By name, in the order of the base, what is new behind it."""
    new = {_name(item): item for item in patch}
    known = {_name(item) for item in base}
    merged = [_merge(item, new[_name(item)]) if _name(item) in new else item for item in base]
    return merged + [_fresh(item) for name, item in new.items() if name not in known]
