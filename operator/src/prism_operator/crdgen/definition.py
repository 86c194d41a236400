"""The CustomResourceDefinition: names, columns, which lists have keys, and its YAML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from prism_operator.api import PrismRunStatus, RunSpec
from prism_operator.crdgen.descriptions import Schema
from prism_operator.crdgen.rules import RULES
from prism_operator.crdgen.schema import field_at, structural_schema
from prism_operator.names import GROUP, KIND, VERSION

PLURAL = "prismruns"
FILE_NAME = f"{PLURAL}.{GROUP}.yaml"

_HEADER = "# Made from the pydantic models by `make generate`; changes belong there.\n"
_COLUMNS = (
    ("Stage", "string", ".status.stage", 0, "The current stage."),
    ("Status", "string", ".status.summary", 0, "What goes on."),
    ("Progress", "integer", ".status.progress", 0, "Percent of the run."),
    ("Attempt", "integer", ".status.attempt", 0, "Of the current stage."),
    ("GPUs", "integer", ".status.gpus", 0, "Of the current stage."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since the object was made."),
    ("Queue", "string", ".spec.queue.name", 1, "Queue that admits the stages."),
    ("Cluster", "string", ".status.cluster", 1, "RayCluster of the live attempt."),
    ("Checkpoint", "string", ".status.checkpoint.uri", 1, "The last final one."),
    ("Reason", "string", ".status.reason", 1, "Of the status, for machines."),
    ("Started", "date", ".status.startedAt", 1, "Since the first attempt started."),
)
_LIST_KEYS = {
    "spec.env": "name",
    "spec.stages[].env": "name",
    "status.conditions": "type",
    "status.stages": "name",
}
"""Lists that several writers may share item by item. The stages of a spec are not among them: a key must be written out, and a stage's
name has a default by its kind; a rule keeps the names apart instead."""


def definition() -> dict[str, Any]:
    """The whole object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["prun"],
                "categories": ["prism"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def to_yaml(document: dict[str, Any]) -> str:
    """With a first line for whoever wants to edit it."""
    return _HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=140, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Equal values are written out each time: an API server knows no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _schema() -> Schema:
    schema: Schema = {
        "description": "One run: a model is post-trained in stages.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"{GROUP}/{VERSION}.", "type": "string"},
            "kind": {"description": f"{KIND}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(RunSpec),
            "status": structural_schema(PrismRunStatus, tells_defaults=False),
        },
    }
    for path, list_schema in lists_of(schema):
        key = _LIST_KEYS.get(path)
        list_schema |= (
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]} if key else {"x-kubernetes-list-type": "atomic"}
        )
    for path, rules in RULES.items():
        field = field_at(schema, path)
        field["x-kubernetes-validations"] = [*field.get("x-kubernetes-validations", ()), *rules(field)]
    return schema


def lists_of(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every list, with its path."""
    for name, value in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if value.get("type") == "array":
            yield here, value
            yield from lists_of(value["items"], f"{here}[]")
        else:
            yield from lists_of(value, here)


def _column(name: str, type_: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": type_, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})
