"""MathVerse (arXiv 2403.14624), testmini: 788 problems, each in five versions that move more and more of the text into the figure.

Columns `sample_index, problem_index, problem_version, question, image, answer, question_type, metadata{subject, subfield},
question_for_eval`. Choices stand in the question ("Choices:\\nA:60\\nB:70"). In the version Vision Only the question is in the image.
Column of the table: accuracy of all 3940, which is the mean of the five versions; the versions are sub-scores. The versions of a problem
are one unit. Upstream asks `query_wo`, which says "directly answer" against the system prompt.
"""

from __future__ import annotations

import re

from prism_trainer.data.rows import Prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.columns import images_of, inner, required, text_of
from prism_trainer.evaluation.problems import A_LETTER, FREE, IN_THE_IMAGE, Problem, choice, pose
from prism_trainer.evaluation.task import Task

_CHOICES = re.compile(r"\n?\s*Choices:\s*\n", re.IGNORECASE)
_CHOICE = re.compile(r"^\s*\(?([A-H])\)?\s*[:.]\s*(.*?)\s*$", re.MULTILINE)


def read(row: RawRow) -> Problem:
    asked, answer = text_of(row, "question_for_eval") or text_of(row, "question"), required(row, "answer")
    question, options = split_choices(text_of(row, "question"))
    known = options or split_choices(asked)[1]
    is_choice = text_of(row, "question_type") == "multi-choice"
    prompt = Prompt(
        f"mathverse:{required(row, 'sample_index')}",
        pose(question, A_LETTER if is_choice else FREE, options if is_choice else ()),
        images_of(row, ("image",)),
    )
    labels = {"version": required(row, "problem_version"), "subject": inner(row, "metadata", "subject"), "type": _type(is_choice)}
    return Problem(
        prompt,
        choice(answer, known) if is_choice else (answer,),
        f"mathverse:{required(row, 'problem_index')}",
        known if is_choice else (),
        labels={name: value for name, value in labels.items() if value},
        asked=asked or IN_THE_IMAGE,
    )


def _type(is_choice: bool) -> str:
    return "multiple choice" if is_choice else "free form"


def split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """The question and its choices; only choices that are lettered A, B, C... in order count as such."""
    question, *rest = _CHOICES.split(text, maxsplit=1)
    found = _CHOICE.findall(rest[0]) if rest else []
    if [letter for letter, _ in found] != list("ABCDEFGH"[: len(found)]):
        return text, ()
    return (question.strip(), tuple(choice_text for _, choice_text in found)) if found else (text, ())


MATHVERSE = Task("mathverse", "CaraJ/MathVerse-lmmseval", {"testmini": ("testmini",)}, read)
