"""The reward of stage 3: 0.8 for a right answer, 0.2 for the right format, nothing at all in the wrong format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.answers import answers_match
from prism_trainer.rewards.symbolic import SHARED, SymbolicJudge

Judge = Callable[[str, Iterable[str]], bool]


@dataclass(frozen=True)
class VerifiableReward:
    """`score` is what the policy is trained on; the parts are what people watch."""

    score: float
    accuracy: float
    format: float


def verifiable_reward(
    parsed: ParsedResponse | None,
    references: Iterable[str],
    *,
    accuracy_weight: float = 0.8,
    format_weight: float = 0.2,
    judge: Judge = answers_match,
) -> VerifiableReward:
    """Score one response, None where its format is wrong, against the answers that count as right.

    Pure apart from the judge's memory: on any thread and in any process the same response has the same reward.
    """
    if parsed is None:
        return VerifiableReward(0.0, 0.0, 0.0)
    accuracy = float(judge(parsed.answer.of(parsed.text), references))
    return VerifiableReward(accuracy_weight * accuracy + format_weight, accuracy, 1.0)


def symbolic_metrics(judge: SymbolicJudge = SHARED) -> dict[str, float]:
    """What became of the formulas that math-verify was asked about, in this process so far. Answers that were cut count as wrong."""
    return {f"symbolic/{name}": float(count) for name, count in asdict(judge.counts).items()}
