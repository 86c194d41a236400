"""A stage's configuration as rows: each option's value, and its default where the run chose another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prism_trainer.contract.job import StageJob


@dataclass(frozen=True)
class Setting:
    """One option. `default` is none where the value is the default."""

    name: str
    value: str
    default: str | None


def settings(job: StageJob) -> list[Setting]:
    """Every option of the stage, as the PrismRun spells it: `rollout.groupSize`."""
    values = dict(_flat(job.config.model_dump(mode="json")))
    defaults = dict(_flat(type(job.config)().model_dump(mode="json")))
    rows = ((name, _written(value), _written(defaults.get(name))) for name, value in values.items())
    return [Setting(name, value, default if default != value else None) for name, value, default in rows]


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _written(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_written, value)) or "none"
        case _:
            return str(value)
