"""CEL rules on what one object may say, beside those of its unions. Each also holds in pydantic or in the planner, in much the same words,
but for `storage.local`, which is right on one machine."""

from __future__ import annotations

from collections.abc import Callable

from prism_operator.api import MAX_STAGES, SECRET_NAME_PATTERN
from prism_operator.crdgen.changes import changes_rule, stage_name
from prism_operator.crdgen.checks import Check, Rule, of_each, one_rule, unless_unchanged
from prism_operator.crdgen.descriptions import Schema
from prism_operator.names import BASE_MODEL

_INDICES = list(range(MAX_STAGES))


def _root(schema: Schema) -> list[Rule]:
    name = {
        "rule": "self.metadata.name.size() <= 36 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "message": "metadata.name: expected at most 36 lower-case letters, digits and '-', beginning and ending with a letter or digit, "
        "because it is part of longer names; give another",
    }
    return [name, changes_rule(schema)]


def _stages(schema: Schema) -> list[Rule]:
    """Also what holds for each of them, beside what their union says."""
    own = schema["items"].pop("x-kubernetes-validations")
    return [
        unless_unchanged(one_rule([_names_differ(), of_each([*own, one_rule(_stage())], "stage", f"'stage ' + {stage_name('stage')}")]))
    ]


def _names_differ() -> Check:
    name, mine, other = (stage_name(stage) for stage in ("s", "self[i]", "self[j]"))
    repeated = f"i < self.size() && {_INDICES}.exists(j, j < i && {mine} == {other})"
    second = stage_name(f"self[{_INDICES}.filter(i, {repeated})[0]]")
    return Check(
        f"[self.map(s, {name})].all(names, names.all(n, names.exists_one(m, m == n)))",
        f"'a second stage is named ' + {second} + '; give each a name of its own'",
    )


def _storage(schema: Schema) -> list[Rule]:
    """A local one is refused first; what is left are none of the others, or both."""
    return [
        one_rule(
            [
                Check("!has(self.local)", "'local is for `prism run` on one machine; on a cluster, give pvc or objectStore'"),
                Check(
                    "has(self.pvc) != has(self.objectStore)",
                    "'found ' + (has(self.pvc) ? 'both' : 'none') + ' of pvc and objectStore; give exactly one'",
                ),
            ]
        )
    ]


def _stage() -> list[Check]:
    benchmarks = "self.kind == 'evaluation' && has(self.config) && has(self.config.benchmarks) && self.config.benchmarks.size() > 0"
    return [
        Check(
            f"!has(self.name) || self.name != '{BASE_MODEL}'",
            f"'{BASE_MODEL} means the base model; give the stage another name'",
        ),
        Check(
            f"has(self.checkpoint) || has(self.data) && self.data.size() > 0 || {benchmarks}",
            "'found no data set; give at least one, or a checkpoint to skip it with'",
        ),
    ]


def _env(schema: Schema) -> list[Rule]:
    secret = "' looks like a secret, and env stands in the object in the clear; give it by reference in spec.secrets'"
    return [one_rule([Check(f"!self.name.matches('{SECRET_NAME_PATTERN}')", f"self.name + {secret}")], ".name")]


RULES: dict[str, Callable[[Schema], list[Rule]]] = {
    "": _root,
    "spec.storage": _storage,
    "spec.stages": _stages,
    "spec.env[]": _env,
    "spec.stages[].env[]": _env,
}
"""By path."""
