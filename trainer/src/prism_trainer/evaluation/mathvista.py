"""MathVista (arXiv 2310.02255), testmini: 1000 questions about figures, half of them multiple choice.

Columns `pid, question, decoded_image, choices, unit, precision, answer, question_type, answer_type, metadata{task, ...}`. The answer to a
multiple-choice question is the text of a choice. Column of the table: accuracy of all 1000. Upstream asks each question with three
prompts and does not say which it reports; here it is asked once.
"""

from __future__ import annotations

from prism_trainer.data.rows import Prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.columns import images_of, inner, required, text_of, texts_of
from prism_trainer.evaluation.problems import A_LETTER, A_LIST, FREE, LETTERS, WHOLE_NUMBER, Problem, choice, decimals, pose
from prism_trainer.evaluation.task import Task


def read(row: RawRow) -> Problem:
    question, answer = required(row, "question"), required(row, "answer")
    unit, options, places = text_of(row, "unit"), texts_of(row, "choices"), _places(row)
    question = f"{question} (unit: {unit})" if unit else question
    references: tuple[str, ...] = (answer,)
    kind = _kind(row, places)
    if options:
        if answer not in options:
            raise row.fail("answer", f"found {answer!r}, expected one of the choices {options}; correct the row")
        references, kind, places = choice(LETTERS[options.index(answer)], options), A_LETTER, None
    prompt = Prompt(f"mathvista:{required(row, 'pid')}", pose(question, kind, options), images_of(row, ("decoded_image",)))
    labels = {"task": inner(row, "metadata", "task"), "type": "multiple choice" if options else "free form"}
    return Problem(prompt, references, prompt.id, options, places, {name: value for name, value in labels.items() if value})


def _places(row: RawRow) -> int | None:
    if text_of(row, "answer_type") != "float":
        return None
    precision = row.columns.get("precision")
    return int(precision) if isinstance(precision, int | float) and precision == precision and 0 <= precision <= 12 else None


def _kind(row: RawRow, places: int | None) -> str:
    if places is not None:
        return decimals(places)
    return {"integer": WHOLE_NUMBER, "list": A_LIST}.get(text_of(row, "answer_type"), FREE)


MATHVISTA = Task("mathvista", "AI4Math/MathVista", {"testmini": ("data/testmini-*",), "test": ("data/test-*",)}, read)
