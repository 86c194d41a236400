"""A job file is written by a program for a program: when it does not fit, two versions met, and the sentence says so."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Job = TypeVar("Job", bound=BaseModel)

SHOWN = 5
"""Fields that are named; the others are counted."""


def read_job(file: Path, kind: type[Job]) -> Job:
    """The job in `file`; ValueError says, in a sentence, what does not fit."""
    try:
        return kind.model_validate_json(file.read_bytes(), by_alias=True, by_name=False)
    except OSError as error:
        raise ValueError(f"job file '{file}' cannot be read: {error}") from error
    except ValidationError as error:
        raise ValueError(f"job file '{file}' cannot be used: {_faults(error)}; {_WAY_OUT}") from error


_WAY_OUT = "the operator and the image of the stage must come from the same version of prism"


def _faults(error: ValidationError) -> str:
    """Unknown fields first: they tell a newer writer from a broken file."""
    details = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    named = [f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in details[:SHOWN]]
    more = len(details) - SHOWN
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")
