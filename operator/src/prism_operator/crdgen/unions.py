"""A union of models as one object: a structural schema cannot say `oneOf` these, so it has the properties of all, each with its widest
range, and CEL rules say which kind has which field, and where a kind's range is narrower."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prism_operator.crdgen.checks import Check, one_rule
from prism_operator.crdgen.descriptions import Schema, merged_description

Path = tuple[str, ...]

_BOUNDS = {"minimum": (min, ">="), "exclusiveMinimum": (min, ">"), "maximum": (max, "<="), "exclusiveMaximum": (max, "<")}
_IN_WORDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
_LEFT_TO_THE_OPERATOR = ("config", "gpu")
"""An object in which any kind may have any field as far as the CRD goes: rules for it would take the CRD beyond 100 KiB. The operator
reads a run with the kind's own class, and refuses it with a condition."""
_MERGED = {*_BOUNDS, "properties", "required", "description", "default", "title", "enum", "const"}


@dataclass
class _Differences:
    """What the merged object allows and a kind does not."""

    only: dict[tuple[tuple[str, ...], Path], list[str]] = field(default_factory=dict)
    """(kinds, object) -> the names of its fields that only these kinds have."""
    narrower: list[tuple[str, Path, str, float]] = field(default_factory=list)
    """(kind, field, comparison, bound)."""
    tags: list[Path] = field(default_factory=list)
    """Fields that repeat the kind."""

    def checks(self, tag: str) -> Iterator[Check]:
        """In CEL."""
        for (kinds, parent), names in self.only.items():
            yield _belongs(tag, kinds, parent, names)
        for kind, path, comparison, bound in self.narrower:
            yield _within(tag, kind, path, comparison, bound)
        for path in self.tags:
            if path != (tag,):
                yield _repeats(tag, path)


def merge_union(tag: str, members: Mapping[str, Schema]) -> Schema:
    """`members` by the value of their field `tag`; the result carries its rules."""
    differences = _Differences()
    merged = _merged(members, (), differences, is_of_all=True)
    merged["properties"][tag]["description"] = " ".join(f"{kind}: {schema['description']}" for kind, schema in members.items())
    merged["required"] = sorted({tag, *merged.get("required", ())})
    return merged | {"x-kubernetes-validations": [one_rule(list(differences.checks(tag)))]}


def _merged(members: Mapping[str, Schema], path: Path, differences: _Differences, *, is_of_all: bool) -> Schema:
    """One schema for what the members call by the same name; whether all kinds that have the object have it."""
    first = next(iter(members.values()))
    _refuse_other_differences(members, path)
    merged = {word: value for word, value in first.items() if word not in _MERGED}
    merged["description"] = merged_description(members, is_of_all)
    _merge_bounds(members, path, merged, differences)
    if "const" in first:
        merged |= {"enum": [schema["const"] for schema in members.values()], "description": "The same again; better left out."}
        differences.tags.append(path)
    elif "enum" in first:
        merged["enum"] = first["enum"]
    if "properties" in first:
        merged["properties"] = _merged_properties(members, path, differences)
        merged["required"] = first.get("required", [])
    return merged


def _merged_properties(members: Mapping[str, Schema], path: Path, differences: _Differences) -> Schema:
    properties = {}
    for name in dict.fromkeys(name for schema in members.values() for name in schema["properties"]):
        owners = {kind: schema["properties"][name] for kind, schema in members.items() if name in schema["properties"]}
        properties[name] = _merged(owners, (*path, name), differences, is_of_all=len(owners) == len(members))
        if len(owners) < len(members) and path != _LEFT_TO_THE_OPERATOR:
            differences.only.setdefault((tuple(owners), path), []).append(name)
    return properties


def _merge_bounds(members: Mapping[str, Schema], path: Path, merged: Schema, differences: _Differences) -> None:
    for word, (widest, comparison) in _BOUNDS.items():
        bounds = {kind: schema[word] for kind, schema in members.items() if word in schema}
        if len(bounds) == len(members):
            merged[word] = widest(bounds.values())
        differences.narrower += [(kind, path, comparison, bound) for kind, bound in bounds.items() if bound != merged.get(word)]


def _refuse_other_differences(members: Mapping[str, Schema], path: Path) -> None:
    """Rather than merge what it has no rule for, the generator stops."""
    for word in dict.fromkeys(word for schema in members.values() for word in schema if word not in _MERGED - {"enum", "required"}):
        values = {kind: schema.get(word) for kind, schema in members.items() if "const" not in schema}
        if len({json.dumps(value) for value in values.values()}) > 1:
            raise ValueError(f"'{word}' of '{'.'.join(path)}' differs between kinds in a way that crdgen cannot merge: {values}")


def _belongs(tag: str, kinds: tuple[str, ...], parent: Path, names: list[str]) -> Check:
    """The sentence names the first field that is out of place: a list of all would cost more than the API server grants a rule."""
    paths = [".".join((*parent, name)) for name in names]
    first = " : ".join([*(f"has(self.{path}) ? '{path}'" for path in paths[:-1]), f"'{paths[-1]}'"])
    return Check(
        f"self.{tag} in {list(kinds)} || {_absence(parent)}!({' || '.join(f'has(self.{path})' for path in paths)})",
        f"'found ' + ({first}) + ' with {tag} ' + self.{tag} + '; only {tag} {' and '.join(kinds)} may have it'",
    )


def _within(tag: str, kind: str, path: Path, comparison: str, bound: float) -> Check:
    name = ".".join(path)
    return Check(
        f"self.{tag} != '{kind}' || {_absence(path)}self.{name} {comparison} {bound}",
        f"'{name} of {tag} {kind}: expected {_IN_WORDS[comparison]} {bound}'",
    )


def _repeats(tag: str, path: Path) -> Check:
    name = ".".join(path)
    return Check(
        f"{_absence(path)}self.{name} == self.{tag}",
        f"'found {name} ' + self.{name} + ' with {tag} ' + self.{tag} + '; leave {name} out'",
    )


def _absence(path: Path) -> str:
    """Of any part, because has() wants its parents there."""
    return "".join(f"!has(self.{'.'.join(path[: end + 1])}) || " for end in range(len(path)))
