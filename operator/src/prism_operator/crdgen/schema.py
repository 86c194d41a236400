"""pydantic's JSON schema as a structural OpenAPI v3 schema, which is what a CustomResourceDefinition takes.

References are put in place, `X or null` becomes X (the API server drops a null where it is not allowed), unions become one object
(unions.py). Defaults move into the descriptions. Keys that pydantic refuses need no word here: the API server knows all properties, so
`kubectl apply` refuses an unknown one and anything else prunes it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from prism_operator.api import IS_OVERLAY
from prism_operator.crdgen.descriptions import Schema, description
from prism_operator.crdgen.unions import merge_union

_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "pattern", "required")
_DROPPED = ("title", "default", "additionalProperties", "properties", "items", "description", "const", "$defs")
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_FORMATS = {"integer": "int64", "number": "double"}


def structural_schema(model: type[BaseModel], tells_defaults: bool = True) -> Schema:
    """Of one model and all it holds. Of what only we write, defaults are of no interest."""
    raw = model.model_json_schema()
    schema = _inlined(raw, raw.get("$defs", {}))
    return _finished(schema if tells_defaults else _without_defaults(schema))


def _inlined(raw: Schema, definitions: Schema) -> Schema:
    """Without references, nulls and unions; still with defaults and JSON schema's words."""
    if IS_OVERLAY in raw:
        return _without_defaults(_inlined({key: value for key, value in raw.items() if key != IS_OVERLAY}, definitions))
    if "$ref" in raw:
        target = definitions[raw["$ref"].rsplit("/", 1)[-1]]
        return _inlined({**target, **{key: value for key, value in raw.items() if key != "$ref"}}, definitions)
    if "anyOf" in raw:
        (only,) = (option for option in raw["anyOf"] if option != {"type": "null"})
        return _inlined({**only, **{key: value for key, value in raw.items() if key != "anyOf"}}, definitions)
    if "oneOf" in raw:
        tag = raw["discriminator"]["propertyName"]
        kinds = {reference: kind for kind, reference in raw["discriminator"]["mapping"].items()}
        members = {kinds[option["$ref"]]: _inlined(option, definitions) for option in raw["oneOf"]}
        return {**merge_union(tag, members), **({"description": raw["description"]} if "description" in raw else {})}
    schema = dict(raw)
    if "properties" in raw:
        schema["properties"] = {name: _inlined(value, definitions) for name, value in raw["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if isinstance(raw.get(inner), dict):
            schema[inner] = _inlined(raw[inner], definitions)
    if "const" in raw:
        schema["enum"] = [raw["const"]]
    return schema


def _without_defaults(schema: Schema) -> Schema:
    inner: Schema = {
        word: _without_defaults(schema[word]) for word in ("items", "additionalProperties") if isinstance(schema.get(word), dict)
    }
    if "properties" in schema:
        inner["properties"] = {name: _without_defaults(value) for name, value in schema["properties"].items()}
    return {word: value for word, value in (schema | inner).items() if word != "default"}


def _finished(schema: Schema) -> Schema:
    """In OpenAPI's words and a fixed order."""
    _refuse_unknown_words(schema)
    done: Schema = {"description": text} if (text := description(schema)) else {}
    done |= {word: schema[word] for word in _KEPT if schema.get(word) not in (None, [])}
    for exclusive, bound in _EXCLUSIVE.items():
        if exclusive in schema:
            done |= {bound: schema[exclusive], exclusive: True}
    if schema.get("type") in _FORMATS:
        done["format"] = _FORMATS[schema["type"]]
    if "properties" in schema:
        done["properties"] = {name: _finished(value) for name, value in schema["properties"].items()}
    elif schema.get("additionalProperties") is True:
        done["x-kubernetes-preserve-unknown-fields"] = True
    elif "additionalProperties" in schema:
        done["additionalProperties"] = _finished(schema["additionalProperties"])
    if "items" in schema:
        done["items"] = _finished(schema["items"])
    return done | {word: value for word, value in schema.items() if word.startswith("x-kubernetes-")}


def _refuse_unknown_words(schema: Schema) -> None:
    known = {*_KEPT, *_DROPPED, *_EXCLUSIVE}
    unknown = [word for word in schema if word not in known and not word.startswith("x-kubernetes-")]
    if unknown:
        raise ValueError(f"the schema of '{schema.get('title', schema)}' says {unknown}, which has no translation yet; add one to crdgen")


def field_at(schema: Schema, path: str) -> Any:
    """The schema of `spec.stages[].env`; an empty path is the schema itself."""
    for part in path.split(".") if path else ():
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return schema
