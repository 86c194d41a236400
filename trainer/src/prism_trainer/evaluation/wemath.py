"""We-Math (arXiv 2407.01284), testmini: 525 composite problems, each with the two or three one-step problems it is made of; 1740 prompts.

Columns `ID, knowledge concept, question, option, answer, image_path, key`; `option` is "A. 3; B. 4; ...", `key` is "2steps_1",
"2steps_multi", "3steps_3" and so on. A composite problem with its steps is one unit, known by `ID` and the number of steps.

The benchmark's own scores say why a composite problem is right or wrong, from its steps:
    insufficient knowledge      wrong, and a step is wrong
    inadequate generalization   wrong, though every step is right
    complete mastery            right, and every step is right (loose: at least one)
    rote memorization           right, though a step is wrong (loose: every step)
    score                       1 - insufficient knowledge - 0.5 * inadequate generalization - rote memorization, strict and loose
Rote memorization is given as the share of the composite problems that are right. Column of the table: accuracy of all prompts, as the
paper does not say which of the four metrics it took; strict and loose stand beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prism_trainer.contract.results import EvaluationSample
from prism_trainer.data.rows import Prompt
from prism_trainer.data.sources import RawRow
from prism_trainer.evaluation.columns import images_of, required, text_of
from prism_trainer.evaluation.problems import A_LETTER, FREE, Problem, choice, pose
from prism_trainer.evaluation.scores import Ratio, shares
from prism_trainer.evaluation.task import Task

STEP = "_step"
COMPOSITE = "multi"
_KEY = re.compile(r"([23])steps_([123]|multi)")
_OPTION = re.compile(r"(?:^|[;\n])\s*([A-H])\s*[.:)]\s*")


def read(row: RawRow) -> Problem:
    key = _KEY.fullmatch(required(row, "key"))
    if key is None:
        raise row.fail("key", f"found {row.columns['key']!r}, expected one such as '2steps_1' or '3steps_multi'; correct the row")
    options, identity = split_options(text_of(row, "option")), required(row, "ID")
    prompt = Prompt(
        f"wemath:{key[0]}:{identity}",
        pose(required(row, "question"), A_LETTER if options else FREE, options),
        images_of(row, ("image_path",)),
    )
    answer = required(row, "answer").upper()
    labels = {"steps": "1" if key[2] != COMPOSITE else key[1], STEP: f"{key[1]}:{key[2]}"}
    return Problem(prompt, choice(answer, options) if options else (answer,), f"wemath:{key[1]}steps:{identity}", options, labels=labels)


def split_options(text: str) -> tuple[str, ...]:
    """ "A. 3 cm; B. 4 cm; C. No correct answer" as its texts; empty where the letters do not run from A."""
    _, *parts = _OPTION.split(text)
    letters, texts = parts[::2], parts[1::2]
    return tuple(one.strip(" ;\n") for one in texts) if letters == list("ABCDEFGH"[: len(letters)]) else ()


def scores(samples: Sequence[EvaluationSample]) -> dict[str, Ratio]:
    """What one composite problem with its steps gives; to the benchmark's own scores nothing where one of them is missing."""
    right = {sample.labels[STEP].partition(":")[2]: sample.correct for sample in samples}
    count = samples[0].labels[STEP].partition(":")[0]
    steps = [right.get(str(number)) for number in range(1, int(count) + 1)]
    found = shares(samples)
    if None in steps or COMPOSITE not in right:
        return found
    every, some = all(steps), any(steps)
    return found | _dimensions(right[COMPOSITE], every, "strict", every) | _dimensions(right[COMPOSITE], every, "loose", some)


def _dimensions(is_right: bool, every: bool, name: str, is_known: bool) -> dict[str, Ratio]:
    """`is_known` is what a right composite problem needs of its steps to count as mastered."""
    insufficient, inadequate = not is_right and not every, not is_right and every
    rote, mastered = is_right and not is_known, is_right and is_known
    return {
        "insufficient knowledge": (float(insufficient), 1.0),
        "inadequate generalization": (float(inadequate), 1.0),
        f"complete mastery, {name}": (float(mastered), 1.0),
        f"rote memorization, {name}": (float(rote), float(is_right)),
        f"score, {name}": (1.0 - insufficient - 0.5 * inadequate - rote, 1.0),
    }


WEMATH = Task("wemath", "We-Math/We-Math", {"testmini": ("data/testmini-*",)}, read, scores)
