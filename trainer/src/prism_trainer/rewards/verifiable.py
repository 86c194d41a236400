"""The reward of stage 3: 0.8 for a right answer, 0.2 for the right format, nothing at all in the wrong format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prism_trainer.responses import parse_response
from prism_trainer.rewards.answers import answers_match


@dataclass(frozen=True)
class VerifiableReward:
    """`score` is what the policy is trained on; the parts are what people watch."""

    score: float
    accuracy: float
    format: float


def verifiable_reward(
    text: str, references: Iterable[str], *, accuracy_weight: float = 0.8, format_weight: float = 0.2
) -> VerifiableReward:
    """Score one response against the answers that count as right."""
    parsed = parse_response(text)
    if parsed is None:
        return VerifiableReward(0.0, 0.0, 0.0)
    accuracy = float(answers_match(parsed.answer.of(text), references))
    return VerifiableReward(accuracy_weight * accuracy + format_weight, accuracy, 1.0)
