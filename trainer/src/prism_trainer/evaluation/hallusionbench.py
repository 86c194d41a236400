"""HallusionBench (arXiv 2310.14566), the 951 yes-or-no questions that have an image.

Columns `category, subcategory, set_id, figure_id, question_id, question, gt_answer ("0" no, "1" yes), image`. Its scores are aAcc, accuracy
of all questions; fAcc, figures about which every question is right; qAcc, questions that are right about every figure of their set. A set
with its figures and questions is one unit. Column of the table: aAcc, the only one that can be as high as what the paper reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from prism_trainer.contract.results import EvaluationSample
from prism_trainer.data.rows import Prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.columns import images_of, required
from prism_trainer.evaluation.problems import YES_OR_NO, Problem, pose
from prism_trainer.evaluation.scores import ACCURACY, Ratio, all_right, shares
from prism_trainer.evaluation.task import Task

ANSWERS = {"0": "no", "1": "yes"}
FIGURE, QUESTION = "_figure", "_question"


def read(row: RawRow) -> Problem:
    answer = ANSWERS.get(required(row, "gt_answer"))
    if answer is None:
        raise row.fail("gt_answer", f"found {row.columns['gt_answer']!r}, expected 0 (no) or 1 (yes); correct the row")
    category, subcategory, of_set, figure, question = (
        required(row, name) for name in ("category", "subcategory", "set_id", "figure_id", "question_id")
    )
    unit = f"hallusionbench:{category}:{subcategory}:{of_set}"
    prompt = Prompt(f"{unit}:{figure}:{question}", pose(required(row, "question"), YES_OR_NO), images_of(row, ("image",)))
    labels = {"category": category, "subcategory": f"{category}, {subcategory}", FIGURE: figure, QUESTION: question}
    return Problem(prompt, (answer,), unit, labels=labels)


def scores(samples: Sequence[EvaluationSample]) -> dict[str, Ratio]:
    """What the questions of one set give."""
    found = shares(samples)
    return {
        "aAcc": found.pop(ACCURACY),
        "fAcc": all_right(samples, lambda sample: sample.labels[FIGURE]),
        "qAcc": all_right(samples, lambda sample: sample.labels[QUESTION]),
        **found,
    }


HALLUSIONBENCH = Task("hallusionbench", "lmms-lab/HallusionBench", {"image": ("data/image-*",)}, read, scores, column="aAcc")
