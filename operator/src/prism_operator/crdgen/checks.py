"""Several conditions as one CEL rule: the API server pays for every rule of every stage on every write, also of the status, so there are
few, and each says the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Rule = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """What must hold, and what is said where it does not, both in CEL."""

    holds: str
    sentence: str


def one_rule(checks: Sequence[Check], field_path: str = "") -> Rule:
    """All of them; refused as Forbidden, which shows the sentence without the object."""
    *others, last = checks
    rule: Rule = {
        "rule": " && ".join(f"({check.holds})" for check in checks) if others else last.holds,
        "messageExpression": "".join(f"!({check.holds}) ? {check.sentence} : " for check in others) + last.sentence,
        "reason": "FieldValueForbidden",
    }
    return rule | ({"fieldPath": field_path} if field_path else {})
