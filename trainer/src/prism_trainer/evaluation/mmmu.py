"""MMMU (arXiv 2311.16502), validation: 900 college questions of 30 subjects; and MMMU-Pro (arXiv 2409.02813), 1730 of them made harder.

MMMU has `id, question, options, image_1 ... image_7, answer, question_type`; `options` is a Python list as text, the subject is part of
the id ("validation_Accounting_1"), an open question may have several right answers. Columns of the table: accuracy of all questions.
MMMU-Pro has the same questions twice: `standard` with ten options, and `vision`, where question and options are in the image. Column of
the table: the mean of the two, which is MMMU-Pro's own overall score; both are sub-scores. The two ways to ask a question are one unit.
Images stand before the text and are named by number in it; upstream puts them in the middle of the text.
"""

from __future__ import annotations

import re

from prism_trainer.data.rows import Prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.columns import images_of, required, text_of, texts_of
from prism_trainer.evaluation.problems import A_LETTER, FREE, LETTERS, Problem, choice, pose
from prism_trainer.evaluation.task import Task

IMAGES = tuple(f"image_{number}" for number in range(1, 8))
DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
_DISCIPLINE = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
_ID = re.compile(r"(?:dev|validation|test)_(.+)_\d+")


def read(row: RawRow) -> Problem:
    identity, question = required(row, "id"), required(row, "question")
    is_choice = text_of(row, "question_type") != "open"
    options = texts_of(row, "options") if is_choice else ()
    prompt = Prompt(f"mmmu:{identity}", pose(question, A_LETTER if options else FREE, options), images_of(row, IMAGES))
    return Problem(prompt, _references(row, options), prompt.id, options, labels=_labels(subject_of(identity)))


def read_pro(row: RawRow) -> Problem:
    """A row without a question is one of setting vision."""
    identity, options = required(row, "id"), texts_of(row, "options")
    setting = "standard" if text_of(row, "question") else "vision"
    images = images_of(row, IMAGES if setting == "standard" else ("image",))
    text = pose(text_of(row, "question"), A_LETTER, options if setting == "standard" else ())
    labels = {"setting": setting, **_labels(text_of(row, "subject") or subject_of(identity))}
    asked = "" if setting == "standard" else pose("", A_LETTER, options)
    prompt = Prompt(f"mmmu-pro:{setting}:{identity}", text, images)
    return Problem(prompt, _references(row, options), f"mmmu-pro:{identity}", options, labels=labels, asked=asked)


def _references(row: RawRow, options: tuple[str, ...]) -> tuple[str, ...]:
    answer = required(row, "answer")
    if options:
        if answer not in LETTERS[: len(options)]:
            raise row.fail("answer", f"found {answer!r}, expected the letter of one of {len(options)} options; correct the row")
        return choice(answer, options)
    return texts_of(row, "answer") if answer.startswith("[") else (answer,)


def subject_of(identity: str) -> str:
    """The subject in an id such as "validation_Art_Theory_12"; empty for any other."""
    match = _ID.fullmatch(identity)
    return match[1] if match else ""


def _labels(subject: str) -> dict[str, str]:
    discipline = _DISCIPLINE.get(subject, "")
    return {name: value for name, value in (("discipline", discipline), ("subject", subject)) if value}


MMMU = Task("mmmu", "MMMU/MMMU", {"validation": ("*/validation-*",)}, read)
MMMU_PRO = Task("mmmu-pro", "MMMU/MMMU_Pro", {"test": ("standard (10 options)/test-*", "vision/test-*")}, read_pro)
