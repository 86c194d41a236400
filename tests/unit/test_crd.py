"""The CustomResourceDefinition says what the pydantic models say, and no more than the API server takes."""

import types
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from prism_operator.api import PrismRunStatus, RunSpec
from prism_operator.crdgen import definition, to_yaml
from prism_operator.crdgen.changes import FINISHED_MAY_CHANGE, ONCE_STARTED, STAGE_MAY_CHANGE
from prism_operator.crdgen.definition import FILE_NAME
from prism_operator.crdgen.rules import RULES
from prism_operator.crdgen.schema import field_at

FILE = Path(__file__).parents[2] / "crds" / FILE_NAME
VERSION = definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def schemas(schema: dict[str, Any], path: str = ""):
    """Every schema in it with its path, itself too."""
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from schemas(value, f"{path}.{name}" if path else name)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from schemas(schema[inner], f"{path}[]")


ALL = dict(schemas(SCHEMA))


def fields(annotation: Any, path: str):
    """Every field of the models an annotation names, by the path the file spells."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            here = f"{path}.{field.alias or name}"
            yield here
            yield from fields(field.annotation, here)
    elif get_origin(annotation) is not Literal:
        inner = f"{path}[]" if get_origin(annotation) in (tuple, dict) else path
        arguments = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
        for argument in arguments:
            yield from fields(argument, inner)


def test_the_file_is_what_make_generate_writes():
    assert FILE.read_text() == to_yaml(definition()), "crds/ is stale; run `make generate`"


def test_it_is_small_enough_for_client_side_apply_and_for_people():
    assert FILE.stat().st_size < 100 * 1024


@pytest.mark.parametrize(("model", "path"), [(RunSpec, "spec"), (PrismRunStatus, "status")])
def test_every_field_of_the_models_is_in_it_and_nothing_else(model, path):
    in_models = set(fields(model, path))
    assert len(in_models) > 50
    assert {path for path in ALL if path.startswith(f"{path.split('.')[0]}.") and not path.endswith("[]")} >= in_models
    assert {here for here in ALL if here.startswith(f"{path}.") and not here.endswith("[]")} == in_models


def test_every_property_says_what_it_is():
    silent = [path for path, schema in ALL.items() if not path.endswith("[]") and not schema.get("description", "").strip("( ")]
    assert silent == ["metadata"]


def test_every_description_begins_with_words_not_with_a_default():
    assert not [path for path, schema in ALL.items() if schema.get("description", "").strip().startswith("Default:")]


@pytest.mark.parametrize("word", ["default", "$ref", "oneOf", "anyOf", "allOf", "nullable", "title", "const"])
def test_it_is_structural_and_leaves_defaults_to_pydantic(word):
    assert not [path for path, schema in ALL.items() if word in schema]


def test_every_list_says_how_it_is_shared():
    lists = {path: schema for path, schema in ALL.items() if schema.get("type") == "array"}
    keyed = {path: schema["x-kubernetes-list-map-keys"] for path, schema in lists.items() if schema["x-kubernetes-list-type"] == "map"}
    assert keyed == {
        "spec.env": ["name"],
        "spec.stages[].env": ["name"],
        "status.conditions": ["type"],
        "status.stages": ["name"],
    }
    assert all(set(keys) <= set(lists[path]["items"]["required"]) for path, keys in keyed.items())


def test_only_a_pod_template_keeps_what_it_does_not_know():
    free = {path for path, schema in ALL.items() if schema.get("x-kubernetes-preserve-unknown-fields")}
    assert free == {"spec.podTemplate", "spec.stages[].podTemplate"}


def test_every_rule_has_a_sentence():
    rules = [rule for schema in ALL.values() for rule in schema.get("x-kubernetes-validations", ())]
    assert len(rules) > 6
    assert not [rule["rule"] for rule in rules if len(rule.get("message") or rule.get("messageExpression", "")) < 30]


def test_rules_name_fields_that_exist():
    assert all(field_at(SCHEMA, path) for path in RULES)
    assert set(STAGE_MAY_CHANGE) <= set(ALL["spec.stages[]"]["properties"])
    assert {*FINISHED_MAY_CHANGE, *ONCE_STARTED} <= set(ALL["spec"]["properties"])


def test_the_widest_range_of_all_kinds_is_allowed_and_a_rule_narrows_it():
    assert ALL["spec.stages[].config.batchSize"]["minimum"] == 1
    assert ".config.batchSize >= 2)" in ALL["spec.stages"]["x-kubernetes-validations"][0]["rule"]


def test_defaults_are_told_by_kind():
    told = ALL["spec.stages[].config.optimizer.learningRate"]["description"]
    assert told == "Peak learning rate. Default: 1e-05 (sft, discriminator), 1e-06 (alignment, rlvr)."
    assert ALL["spec.stages[].name"]["description"] == "Name, unique in the run. Default: the kind."


def test_what_a_write_leaves_as_it_is_costs_the_api_server_a_comparison():
    """It evaluates all rules on every write, also of the status. The few that are left at items of lists look at one short text each."""
    dear = {
        path: rule for path, schema in ALL.items() if path for rule in schema.get("x-kubernetes-validations", ()) if len(rule["rule"]) > 150
    }
    assert list(dear) == ["spec.stages"] and dear["spec.stages"]["rule"].startswith("oldSelf.hasValue() && oldSelf.value() == self || ")
    assert dear["spec.stages"]["optionalOldSelf"] is True
    whole, name = sorted(SCHEMA["x-kubernetes-validations"], key=lambda rule: -len(rule["rule"]))
    assert whole["rule"].startswith("self.spec == oldSelf.spec || ") and len(name["rule"]) < 150


def test_the_columns_are_those_of_the_documentation():
    columns = VERSION["additionalPrinterColumns"]
    names = [(column["name"].upper(), column.get("priority", 0)) for column in columns]
    assert [name for name, priority in names if not priority] == ["STAGE", "STATUS", "PROGRESS", "ATTEMPT", "GPUS", "AGE"]
    assert [name for name, priority in names if priority] == ["QUEUE", "CLUSTER", "CHECKPOINT", "REASON", "STARTED"]


def test_every_column_reads_a_field_that_exists():
    paths = [column["jsonPath"].removeprefix(".") for column in VERSION["additionalPrinterColumns"]]
    assert [path for path in paths if path not in ALL] == ["metadata.creationTimestamp"]


def test_nothing_but_models_is_in_a_union():
    """So that the walk above sees every field: a union is of models, or of one type and None."""
    for model in (RunSpec, PrismRunStatus):
        for field in model.model_fields.values():
            if isinstance(field.annotation, types.UnionType):
                assert len([option for option in get_args(field.annotation) if option is not type(None)]) == 1
