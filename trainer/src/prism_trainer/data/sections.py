"""A response that a row gives whole or in its two parts, with XML tags or without: the same sections either way.

Whether the released `teacher_caption` and `teacher_cot` have tags is not known, and students' always do, so a difference would tell
teacher from student at once. Parts are laid out as the system prompt shows it; a whole response in the right format stays as it is.
"""

from __future__ import annotations

import re

from prism_trainer.data.sources import RawRow
from prism_trainer.data.template import caption_block, cot_block
from prism_trainer.responses import TAGS, ParsedResponse, parse_response

_CAPTION = re.compile(r"\s*<caption>(?P<caption>.*)</caption>\s*", re.DOTALL)
_COT = re.compile(r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)


def read_response(row: RawRow, writer: str, answers: tuple[str, ...]) -> ParsedResponse:
    """Of the columns `<writer>_response`, `<writer>_caption` and `<writer>_cot`. In the wrong format it could teach nothing: refused.

    A cot without tags is reasoning with the answer after it: `answers` are looked for at its end, and where none stands there the
    first is added.
    """
    whole, caption, cot = (f"{writer}_{part}" for part in ("response", "caption", "cot"))
    given = row.columns.get(whole)
    if given not in (None, ""):
        text = row.text(whole)
        parsed = parse_response(text.strip())
        if parsed is None and not _has_tags(text) and row.columns.get(caption) and row.columns.get(cot):
            parsed = _joined(row.text(caption), row.text(cot), answers)
            if parsed is not None and _letters(parsed.text) != _letters(text):
                parsed = None
        return parsed or _refuse(row, whole, text)
    joined = _joined(row.text(caption), row.text(cot), answers)
    return joined or _refuse(row, f"{caption} + {cot}", f"{row.text(caption)}\n{row.text(cot)}")


def _joined(caption: str, cot: str, answers: tuple[str, ...]) -> ParsedResponse | None:
    if _has_tags(caption):
        found = _CAPTION.fullmatch(caption)
        caption = found["caption"] if found else ""
    if _has_tags(cot):
        found = _COT.fullmatch(cot)
        think, answer = (found["think"], found["answer"]) if found else ("", "")
    else:
        think, answer = _split_answer(cot.strip(), answers)
    return parse_response(f"{caption_block(caption)}\n{cot_block(think, answer)}")


def _split_answer(cot: str, answers: tuple[str, ...]) -> tuple[str, str]:
    for answer in answers:
        think = cot.removesuffix(answer)
        if think != cot and (think[-1:].isspace() or not think):
            return think, answer
    return cot, answers[0] if answers else ""


def _has_tags(text: str) -> bool:
    return any(tag in text for tag in TAGS)


def _letters(text: str) -> str:
    for tag in TAGS:
        text = text.replace(tag, "")
    return "".join(text.split())


def _refuse(row: RawRow, column: str, text: str) -> ParsedResponse:
    hint = "" if _has_tags(text) else ", nor text without any tags beside an answer"
    raise row.fail(column, f"not <caption><think><answer> once each in this order{hint}: {text.strip()[:60]!r}; correct the row")
