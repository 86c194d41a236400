"""Several conditions as one CEL rule: the API server pays for every rule on every write, also of the status, so there are few, each says
the first thing that is wrong, and one that is dear is not asked of what a write leaves as it is."""

from __future__ import annotations

import re
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
        "messageExpression": "".join(f"!({check.holds}) ? ({check.sentence}) : " for check in others) + last.sentence,
        "reason": "FieldValueForbidden",
    }
    return rule | ({"fieldPath": field_path} if field_path else {})


def of_each(rules: Sequence[Rule], item: str, whose: str) -> Check:
    """What rules of an item say, asked of its list. `item` is a name that none of them uses, `whose` CEL for the name of one."""
    own = one_rule([Check(rule["rule"], rule["messageExpression"]) for rule in rules])
    holds, sentence = (re.sub(r"\bself\b", item, own[word]) for word in ("rule", "messageExpression"))
    said = f"self.map({item}, ({holds}) ? '' : {whose} + ': ' + ({sentence}))"  # of items of a filtered list no size is known, and no cost
    return Check(f"self.all({item}, {holds})", f"{said}.filter(found, found != '')[0]")


def unless_unchanged(rule: Rule) -> Rule:
    """For everybody who writes something else. A comparison costs a hundredth: has() of a field makes a map of all fields of its object."""
    return rule | {"rule": f"oldSelf.hasValue() && oldSelf.value() == self || {rule['rule']}", "optionalOldSelf": True}
