"""The CustomResourceDefinition of PrismRun, made from the pydantic models: `python -m prism_operator.crdgen FILE...`.

It has no `default:`. A default decides what a stage learns and so enters its configuration digest: it is set in one place, by pydantic,
and shown in the field's description. Were it also written into stored objects, an upgrade that changes one would not reach them. The
printer columns read the status, which the operator writes, so they need none either.

    schema.py        JSON schema -> structural OpenAPI schema
    unions.py        kinds of stages and algorithms -> one object with the fields of all, and rules that say which belong to which
    rules.py         CEL rules: what one object may say
    changes.py       the CEL rule on what may still change once work has begun
    checks.py        several conditions as one rule
    descriptions.py  what `kubectl explain` says
    definition.py    names, columns, list types, and the YAML
"""

from prism_operator.crdgen.definition import definition, to_yaml

__all__ = ["definition", "to_yaml"]
