"""The held table of answer pairs: each verdict was decided by reading the pair, its reason beside it, and not by running a judge."""

import json
from collections import Counter
from pathlib import Path

import pytest

from prism_trainer.rewards.answers import answers_match, answers_match_by_rules

TABLE = [json.loads(line) for line in (Path(__file__).parents[1] / "data/answers.jsonl").read_text().splitlines()]
KINDS = {"number", "thousands", "unit", "percent", "fraction", "latex", "option", "coordinate", "set", "list", "equivalent", "expression",
         "polarity", "word"}  # fmt: skip


def references_of(row):
    return [row["reference"], *row.get("equivalents", ())]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['kind']}: {row['reference']} / {row['given']}")
def test_the_judge_says_what_the_table_says(row):
    pytest.importorskip("math_verify")
    assert answers_match(row["given"], references_of(row)) is (row["verdict"] and "missed" not in row), row["why"]


def test_who_is_the_reference_makes_no_difference():
    pairs = [(row["reference"], row["given"]) for row in TABLE if row["given"]]
    assert not [pair for pair in pairs if answers_match_by_rules(*_judged(pair)) is not answers_match_by_rules(*_judged(pair[::-1]))]


def test_every_answer_of_the_table_is_itself():
    texts = {text for row in TABLE for text in (*references_of(row), row["given"]) if text}
    assert not [text for text in texts if not answers_match_by_rules(text, [text]) or not answers_match_by_rules(f" {text}\n", [text])]


def _judged(pair):
    return pair[1], [pair[0]]


def test_rules_alone_never_accept_what_the_table_refuses():
    assert not [row for row in TABLE if answers_match_by_rules(row["given"], references_of(row)) and not row["verdict"]]


def test_what_the_judge_is_known_to_miss_is_little_and_says_why():
    missed = [row for row in TABLE if "missed" in row]
    assert all(row["verdict"] and row["missed"] for row in missed)
    assert len(missed) <= 0.02 * len(TABLE)


def test_the_table_has_both_verdicts_of_each_kind_and_a_reason_for_each():
    assert len(TABLE) >= 300
    verdicts = Counter((row["kind"], row["verdict"]) for row in TABLE)
    assert {kind for kind, _ in verdicts} == KINDS
    assert all(verdicts[kind, verdict] >= 4 for kind in KINDS for verdict in (True, False)), verdicts
    assert all(row["why"] for row in TABLE)
    pairs = [(*references_of(row), row["given"]) for row in TABLE]
    assert len(set(pairs)) == len(pairs)
