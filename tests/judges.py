"""Whom the tests of rewards ask: what every stage asks, and the two judges it is compared with."""

from prism_trainer.rewards.answers import answers_match, answers_match_by_rules, formulas_match

JUDGES = {"RulesThenMathVerify": answers_match, "Rules": answers_match_by_rules, "MathVerify": formulas_match}
