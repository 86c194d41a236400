"""From responses to samples: the extracted answer by the rules, and by the judge where they say no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prism_trainer.contract.results import EvaluationSample
from prism_trainer.evaluation.judge import Case, Judge
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.rules import is_right
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.answers import MAX_ANSWER_CHARS


@dataclass(frozen=True)
class Response:
    """One response as drawn; `parsed` is none where its format is wrong or it was cut."""

    text: str
    parsed: ParsedResponse | None
    num_tokens: int
    was_cut: bool

    @property
    def answer(self) -> str | None:
        """All that rules and judge get to see."""
        return self.parsed.answer.of(self.text).strip() if self.parsed else None


def mark(
    stage: str, benchmark: str, seed: int, problems: Sequence[Problem], responses: Sequence[Response], judge: Judge | None = None
) -> list[EvaluationSample]:
    """One sample for each problem and its response."""
    samples = [_by_rules(stage, benchmark, seed, *pair) for pair in zip(problems, responses, strict=True)]
    return judged(samples, problems, judge) if judge else samples


def _by_rules(stage: str, benchmark: str, seed: int, problem: Problem, response: Response) -> EvaluationSample:
    return EvaluationSample(
        stage=stage,
        benchmark=benchmark,
        prompt_id=problem.prompt.id,
        seed=seed,
        question=problem.prompt.question,
        response=response.text,
        reference=problem.references[0],
        answer=response.answer,
        correct=response.answer is not None and is_right(problem, response.answer),
        format_valid=response.parsed is not None,
        num_tokens=response.num_tokens,
        was_cut=response.was_cut,
        unit=problem.unit,
        labels=dict(problem.labels),
    )


def judged(samples: Sequence[EvaluationSample], problems: Sequence[Problem], judge: Judge) -> list[EvaluationSample]:
    """The samples with the judge's word on those that it is asked about, which were none of the judge's yet."""
    asked = [index for index, sample in enumerate(samples) if is_for_judge(sample)]
    verdicts = judge.verdicts([_case(problems[index], samples[index].answer or "") for index in asked])
    found = list(samples)
    for index, verdict in zip(asked, verdicts, strict=True):
        found[index] = found[index].model_copy(update={"judge": verdict, "correct": verdict == "right"})
    return found


def is_for_judge(sample: EvaluationSample) -> bool:
    """Without an answer there is nothing to ask about, and an answer beyond the rules' length is no final answer."""
    return not sample.correct and 0 < len(sample.answer or "") < MAX_ANSWER_CHARS


def _case(problem: Problem, answer: str) -> Case:
    """A choice is told as its letter with its text, other answers as all that count."""
    return Case(problem.question, (". " if problem.options else " or ").join(problem.references), answer)
