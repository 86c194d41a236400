"""The CEL rule on what may still change once work has begun.

What is not listed as changeable is not, so a new field is covered without a change here. The API server evaluates the rule at the root
of the object on every write, with the stored status in `self.status`: a client cannot write it together with the spec. It
estimates a rule's cost by the longest lists and strings the schema allows before it accepts one; so these count through the indices of
the stages, where a search by name would be quadratic, and ask `has` of every field, where optional types have no known size.
"""

from __future__ import annotations

from collections.abc import Iterable

from prism_operator.api import MAX_STAGES, RunSpec
from prism_operator.crdgen.checks import Check, Rule, one_rule
from prism_operator.crdgen.descriptions import Schema

STAGE_MAY_CHANGE = ("deadlines", "env", "image", "podTemplate", "resources", "retries")
"""Of a stage that has started: how it is carried out, from its next attempt on. All else decides what it learns."""
FINISHED_MAY_CHANGE = ("ttlSecondsAfterFinished",)
"""Of a run that has ended."""
ONCE_STARTED = ("engine", "systemPrompt")
"""Of a run: what enters every stage's result, beside model and seed, which never change."""

_INDICES = list(range(MAX_STAGES))
_HAS_STAGES = "has(self.status) && has(self.status.stages)"
_FINISHED = (
    "has(oldSelf.status) && has(oldSelf.status.conditions) && "
    "oldSelf.status.conditions.exists(c, c.type == 'Finished' && c.status == 'True')"
)


def stage_name(stage: str) -> str:
    """CEL for the name of the stage that the CEL `stage` stands for."""
    return f"(has({stage}.name) ? {stage}.name : {stage}.kind)"


def changes_rule(schema: Schema) -> Rule:
    """Of the whole object, because it depends on the status. Most writes are of the status, and end at its first comparison."""
    spec = schema["properties"]["spec"]
    checks = [
        _finished_stays(spec),
        _stays("self.spec.model == oldSelf.spec.model", "the model of a run stays as it is, because every checkpoint began with it"),
        _stays(_same_storage(spec["properties"]["storage"]), "the storage of a run stays as it is, because its checkpoints lie there"),
        _stays(_same_seed(), "the seed of a run stays as it is, because it enters every result"),
        *(_stays_once_started(name, spec) for name in ONCE_STARTED),
        _started_stages_stay(spec),
    ]
    rule = one_rule(checks, ".spec")
    return rule | {"rule": f"self.spec == oldSelf.spec || {rule['rule']}"}


def _finished_stays(spec: Schema) -> Check:
    fixed = [name for name in spec["properties"] if name not in FINISHED_MAY_CHANGE]
    changed = [*(f"!{_same('self.spec', 'oldSelf.spec', name, spec)} ? '{name}'" for name in fixed[:-1]), f"'{fixed[-1]}'"]
    return Check(
        f"!({_FINISHED}) || {_all_same('self.spec', 'oldSelf.spec', fixed, spec)}",
        f"'found a change of ' + ({' : '.join(changed)}) + ', and the run has finished; only {' and '.join(FINISHED_MAY_CHANGE)} may still "
        "change. Make a new run; a stage of it may take a checkpoint of this one'",
    )


def _same_storage(storage: Schema) -> str:
    """The place; how it is reached may change, as when credentials are renewed."""
    new, old = "self.spec.storage", "oldSelf.spec.storage"
    uri = f"(!has({new}.objectStore) || !has({old}.objectStore) || {new}.objectStore.uri == {old}.objectStore.uri)"
    return f"{_same(new, old, 'pvc', storage)} && {uri}"


def _same_seed() -> str:
    default = RunSpec.model_fields["seed"].default
    new, old = (f"(has({spec}.seed) ? {spec}.seed : {default})" for spec in ("self.spec", "oldSelf.spec"))
    return f"{new} == {old}"


def _stays_once_started(name: str, spec: Schema) -> Check:
    started = "self.status.stages.exists(s, has(s.attempts) && s.attempts.size() > 0)"
    return _stays(
        f"!({_HAS_STAGES}) || !{started} || {_same('self.spec', 'oldSelf.spec', name, spec)}",
        f"{name} stays as it is once a stage has started, because it enters its result",
    )


def _started_stages_stay(spec: Schema) -> Check:
    """And those before them, whose checkpoints they may have read; nor is a stage put between."""
    stage = spec["properties"]["stages"]["items"]
    fixed = [name for name in stage["properties"] if name not in (*STAGE_MAY_CHANGE, "name")]
    old, new = "oldSelf.spec.stages[i]", "self.spec.stages[i]"
    same = f"self.spec.stages.size() > i && {stage_name(new)} == {stage_name(old)} && {_all_same(new, old, fixed, stage)}"
    started = f"self.status.stages.exists(s, s.name == {stage_name('oldSelf.spec.stages[j]')} && has(s.attempts) && s.attempts.size() > 0)"
    started_later = f"{_INDICES}.exists(j, j >= i && j < oldSelf.spec.stages.size() && {started})"
    first_changed = f"oldSelf.spec.stages[{_INDICES}.filter(i, oldSelf.spec.stages.size() > i && !({same}))[0]]"
    return Check(
        f"!({_HAS_STAGES}) || {_INDICES}.all(i, oldSelf.spec.stages.size() <= i || {same} || !{started_later})",
        f"'stage ' + {stage_name(first_changed)} + ' or one after it has started, so it stays where and as it is; "
        f"only {', '.join(STAGE_MAY_CHANGE)} of it may still change. For anything else make a new run'",
    )


def _stays(holds: str, because: str) -> Check:
    return Check(holds, f"'{because}; make a new run with another name'")


def _all_same(new: str, old: str, names: Iterable[str], schema: Schema) -> str:
    return " && ".join(_same(new, old, name, schema) for name in names)


def _same(new: str, old: str, name: str, schema: Schema) -> str:
    if name in schema.get("required", ()):
        return f"({new}.{name} == {old}.{name})"
    return f"(has({new}.{name}) ? has({old}.{name}) && {new}.{name} == {old}.{name} : !has({old}.{name}))"
