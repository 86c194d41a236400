"""How often rewards are right, and how fast: our judge, math-verify alone, and upstream's rules as the specification describes them.

    python benchmarks/rewards.py [--repeats 3]

On the held table tests/data/answers.jsonl. Precision is the share of accepted answers that are right, recall the share of right answers
that are accepted. Speed is in evaluations a second on one process and on two (spawned, each with its own math-verify worker), with nothing
remembered from one round to the next; whole numbers are what most of a training step looks like. If `mathruler` can be imported it is
compared on what geometry answers look like.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import logging
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import math_verify

from prism_trainer.rewards import answers
from prism_trainer.rewards.answers import answers_match, answers_match_by_rules, formulas_match
from prism_trainer.rewards.symbolic import SHARED

TABLE = Path(__file__).parents[1] / "tests/data/answers.jsonl"
GEOMETRY = ("number", "unit", "percent", "fraction", "latex", "expression")
Judge = Callable[[str, Iterable[str]], bool]


# ---- math-verify as its own documentation uses it: default settings, its own alarms -------------------------------------------------


def by_math_verify(answer: str, references: Iterable[str]) -> bool:
    return any(_math_verify(answer, reference) for reference in references)


def by_math_verify_boxed(answer: str, references: Iterable[str]) -> bool:
    """As upstream's second reward calls it: both sides boxed."""
    return any(_math_verify(rf"\boxed{{{answer}}}", rf"\boxed{{{reference}}}") for reference in references)


def _math_verify(given: str, gold: str) -> bool:
    return bool(math_verify.verify(math_verify.parse(gold), math_verify.parse(given)))


# ---- upstream's rules, written from section 5 of the specification with the defects that section 9.C measured -----------------------

_PARTS = re.compile(r"\(\d\)")
_UNITS = re.compile(r"(?<=[\d}])\s*(?:\\?[A-Za-z°%]+(?:\s*/\s*[A-Za-z]+)?(?:\^\{?\d\}?)?|\^\{?\\circ\}?)$")
_PAIR = re.compile(r"\(([^(),]+),([^(),]+)\)")


def by_upstream_rules(answer: str, references: Iterable[str]) -> bool:
    return any(_upstream_match(answer, reference) for reference in references)


def _upstream_match(given: str, gold: str) -> bool:
    gold_parts, given_parts = _upstream_parts(gold), _upstream_parts(given)
    return len(gold_parts) == len(given_parts) and all(_upstream_part(*pair) for pair in zip(given_parts, gold_parts, strict=True))


def _upstream_parts(text: str) -> list[str]:
    if len(_PARTS.findall(text)) > 1:
        return [part.strip() for part in _PARTS.split(text) if part.strip()]
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char in ";,":
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _upstream_clean(text: str) -> str:
    text = text.strip().strip("$").replace("\\dfrac", "\\frac").replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\(?:text|boxed)\{([^{}]*)\}", r"\1", text)
    return re.sub(r"(?<=\d),(?=\d)", "", text).strip().rstrip(".")


def _upstream_part(given: str, gold: str) -> bool:
    letter = re.fullmatch(r"\(?([A-H])\)?(?:[.)\s].*)?", gold.strip())
    if letter:
        return _upstream_letter(given) == letter[1]
    one, other = _upstream_clean(given), _upstream_clean(gold)
    pairs = _PAIR.fullmatch(one), _PAIR.fullmatch(other)
    if pairs[0] and pairs[1]:
        return all(_upstream_numbers(*both) for both in zip(pairs[0].groups(), pairs[1].groups(), strict=True))
    if one == other or _upstream_numbers(one, other):
        return True
    plain = ["".join(text.casefold().split()) for text in (one, other)]
    if plain[0] == plain[1] or (_UNITS.sub("", one) == _UNITS.sub("", other) != ""):
        return True
    return _math_verify(given, gold) or _math_verify(one, other)


def _upstream_letter(text: str) -> str | None:
    if re.fullmatch(r"[A-H]", text.strip()):
        return text.strip()
    for form in (r"answer is\s*\(?([A-H])\b", r"\(([A-H])\)", r"\b([A-H])\."):
        found = re.search(form, text)
        if found:
            return found[1]
    return None


def _upstream_numbers(one: str, other: str) -> bool:
    try:
        return math.isclose(float(_UNITS.sub("", one.strip())), float(_UNITS.sub("", other.strip())), rel_tol=1e-6)
    except ValueError:
        return False


UPSTREAM_MEASURED = [("(3,4)", "(3, 4)", False), ("(3,4)", "(34)", True), ("5kg", "5lb", True), ("5 m", "5 cm", True),
                     ("12,000", "12000", False), ("2\\sqrt{3}", "\\sqrt{12}", False), ("{1, 2}", "{2, 1}", False)]  # fmt: skip
"""What the specification saw upstream do; the rewriting above must do the same."""

# ---- the tables ----------------------------------------------------------------------------------------------------------------------


def read_table() -> list[dict]:
    return [json.loads(line) for line in TABLE.read_text().splitlines()]


def references_of(row: dict) -> list[str]:
    return [row["reference"], *row.get("equivalents", ())]


def accuracy_line(name: str, judge: Judge, rows: list[dict]) -> str:
    verdicts = [(judge(row["given"], references_of(row)), row["verdict"]) for row in rows]
    right = sum(found and wanted for found, wanted in verdicts)
    accepted, wanted = sum(found for found, _ in verdicts), sum(wanted for _, wanted in verdicts)
    agreed = sum(found == wanted for found, wanted in verdicts)
    return f"| {name} | {right / accepted:.1%} | {right / wanted:.1%} | {accepted - right} | {wanted - right} | {agreed / len(rows):.1%} |"


def jobs_of(workload: str) -> list[tuple[str, list[str]]]:
    if workload == "whole numbers":
        return [(f"\n{given}\n", [str(reference)]) for given in range(50) for reference in range(50)]
    return [(row["given"], references_of(row)) for row in read_table()]


def seconds_of(judge: Judge, workload: str) -> tuple[float, int]:
    """Wall seconds of one round with nothing remembered, and how many were judged."""
    jobs = jobs_of(workload)
    SHARED._verdicts.clear()
    answers._quantity.cache_clear()
    answers._option.cache_clear()
    start = time.perf_counter()
    for given, references in jobs:
        judge(given, references)
    return time.perf_counter() - start, len(jobs)


def speed(judge: Judge, workload: str, processes: int, repeats: int) -> float:
    """Evaluations a second of all processes together: the median of the rounds after the first, which starts the workers."""
    ask = functools.partial(seconds_of, judge)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        rounds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            found = list(pool.map(ask, [workload] * processes))
            rounds.append(sum(count for _, count in found) / (time.perf_counter() - start))
    return statistics.median(rounds[1:])


def by_mathruler() -> Judge | None:
    try:
        grade = importlib.import_module("mathruler.grader").grade_answer
    except ImportError:
        return None
    return lambda answer, references: any(bool(grade(answer, reference)) for reference in references)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    logging.disable()
    for gold, given, wanted in UPSTREAM_MEASURED:
        assert by_upstream_rules(given, [gold]) is wanted, (gold, given)
    rows = read_table()
    heading = "| precision | recall | wrongly accepted | wrongly refused | agreement |\n| --- | --- | --- | --- | --- | --- |"
    print(f"{len(rows)} pairs, {sum(row['verdict'] for row in rows)} of them right\n\n| judge {heading}")
    judges = {
        "rules, then math-verify": answers_match,
        "rules alone": answers_match_by_rules,
        "math-verify, tidied": formulas_match,
        "math-verify, as it is": by_math_verify,
        "math-verify, boxed": by_math_verify_boxed,
        "upstream's rules": by_upstream_rules,
    }
    for name, judge in judges.items():
        print(accuracy_line(name, judge, rows))
    print(f"\nasked of math-verify: {SHARED.counts}")

    grade = by_mathruler()
    geometry = [row for row in rows if row["kind"] in GEOMETRY]
    if grade:
        print(f"\nthe {len(geometry)} pairs like geometry answers\n\n| judge {heading}")
        print(accuracy_line("rules, then math-verify", answers_match, geometry))
        print(accuracy_line("mathruler", grade, geometry))
        same = sum(grade(row["given"], references_of(row)) == answers_match(row["given"], references_of(row)) for row in geometry)
        print(f"\nboth say the same of {same} ({same / len(geometry):.1%})")

    print("\n| evaluations/s | 1 process | 2 processes |\n| --- | --- | --- |")
    timed = {"rules, then math-verify": answers_match, "rules alone": answers_match_by_rules, "math-verify, as it is": by_math_verify,
             "upstream's rules": by_upstream_rules}  # fmt: skip
    for workload in ("the table", "whole numbers"):
        for name, judge in timed.items():
            print(
                f"| {name}, {workload} | {speed(judge, workload, 1, repeats):,.0f} | {speed(judge, workload, 2, repeats):,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
