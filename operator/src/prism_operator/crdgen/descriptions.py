"""What `kubectl explain` says of a field: its description and its default, by kind where kinds differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_LONGEST_DEFAULT = 60


def description(schema: Schema) -> str:
    """What the field is, and what holds when it is left out."""
    return _with_default(str(schema.get("description", "")), _default(schema))


def merged_description(members: Mapping[str, Schema], is_of_all: bool) -> str:
    """The same for a field that several kinds have; whose it is, unless it is a field of all."""
    texts = _kinds_by_value({kind: str(schema.get("description", "")) for kind, schema in members.items()})
    named = len(texts) > 1 or not is_of_all
    text = " ".join(f"({', '.join(kinds)}) {text}" if named else text for text, kinds in texts.items())
    return _with_default(text, _merged_default({kind: _default(schema) for kind, schema in members.items()}))


def _merged_default(defaults: Mapping[str, str]) -> str:
    if all(default == kind for kind, default in defaults.items()):
        return "the kind"
    groups = _kinds_by_value(defaults)
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{default or 'none'} ({', '.join(kinds)})" for default, kinds in groups.items())


def _with_default(text: str, default: str) -> str:
    return f"{text} Default: {default}." if default else text


def _default(schema: Schema) -> str:
    """One worth telling: not none, not empty, not a page of text."""
    value = schema.get("default")
    if value is None or value in ("", [], {}):
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_DEFAULT else ""


def _kinds_by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for kind, value in values.items():
        groups.setdefault(value, []).append(kind)
    return groups
