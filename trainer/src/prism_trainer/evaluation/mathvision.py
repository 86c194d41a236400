"""MATH-Vision (arXiv 2402.14804): competition problems, 3040 in split test and 304 of them in testmini.

Columns `id, question, options, decoded_image, answer, level, subject`; the answer is a letter where there are options, else a value.
Column of the table: accuracy. The default split is testmini, because the paper's scripts run it; with 304 problems its interval is wide.
"""

from __future__ import annotations

from prism_trainer.data.rows import Prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.columns import images_of, required, text_of, texts_of
from prism_trainer.evaluation.problems import A_LETTER, FREE, Problem, choice, pose
from prism_trainer.evaluation.task import Task


def read(row: RawRow) -> Problem:
    options, answer = texts_of(row, "options"), required(row, "answer")
    prompt = Prompt(
        f"mathvision:{required(row, 'id')}",
        pose(required(row, "question"), A_LETTER if options else FREE, options),
        images_of(row, ("decoded_image",)),
    )
    labels = {"level": text_of(row, "level"), "subject": text_of(row, "subject")}
    references = choice(answer, options) if options else (answer,)
    return Problem(prompt, references, prompt.id, options, labels={name: value for name, value in labels.items() if value})


MATHVISION = Task("mathvision", "MathLLMs/MathVision", {"testmini": ("data/testmini-*",), "test": ("data/test-*",)}, read)
