"""The manners of every typed object in a PrismRun: frozen, camelCase in files, unknown keys refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Frozen(BaseModel):
    """A value. Files and the API server spell its fields in camelCase, Python in snake_case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a file: camelCase, JSON types, unset options left out."""
        return self.model_dump(mode="json", exclude_none=True)


def canonical_json(value: Any) -> str:
    """One spelling for one value, so that equal values have equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """`sha256:<hex>` over the canonical JSON of `value`."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()
