"""The answers of a row that count as right: `reward_model` {ground_truth, equivalent_answers}, or `answer` in place of ground_truth."""

from __future__ import annotations

from typing import Any

from prism_trainer.data.sources import RawRow
from prism_trainer.data.words import describe

NO_EQUIVALENTS = "__EMPTY__"


def read_references(row: RawRow) -> tuple[str, ...]:
    """The ground truth first; empty where the row has none at all."""
    model = row.columns.get("reward_model")
    if model is not None and not isinstance(model, dict):
        raise row.fail("reward_model", f"found {describe(model)}, expected an object with ground_truth; correct the row")
    model = model or {}
    return (*_truth(row, model), *_equivalents(row, model.get("equivalent_answers")))


def _truth(row: RawRow, model: dict[str, Any]) -> list[str]:
    """Empty text is refused: no answer equals it, so the row would only ever be failed."""
    for column, value in (("reward_model.ground_truth", model.get("ground_truth")), ("answer", row.columns.get("answer"))):
        if value is not None:
            truth = _answer(row, column, value)
            if not truth:
                raise row.fail(column, "found empty text, expected an answer to compare with; add one or remove the row")
            return [truth] if truth != NO_EQUIVALENTS else []
    return []


def _equivalents(row: RawRow, found: Any) -> list[str]:
    """A text is one answer, not a list of letters. What says nothing is left out."""
    column = "reward_model.equivalent_answers"
    if found is None or isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        raise row.fail(column, f"found {describe(found)}, expected a list of answers or one answer as text; correct the row")
    answers = [_answer(row, column, answer) for answer in found if answer is not None]
    return [answer for answer in answers if answer not in ("", NO_EQUIVALENTS)]


def _answer(row: RawRow, column: str, value: Any) -> str:
    """A number that is none (how pandas writes a missing value) is not an answer."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value != value:
        raise row.fail(column, f"found {describe(value)}, expected text or a number; correct the row")
    return str(value).strip()
