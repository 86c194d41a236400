"""The judge after the answers: asked about what the rules said no to, where all answers are drawn before the judge has a place to run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from prism_trainer.contract.results import EvaluationSample
from prism_trainer.evaluation.judge import Judge
from prism_trainer.evaluation.marking import is_for_judge, judged
from prism_trainer.evaluation.record import SampleRecord, key_of
from prism_trainer.evaluation.suite import ProblemSet

Pending = dict[str, list[EvaluationSample]]
"""Answers that wait for a verdict, by prompt, without their texts."""


def pending(record: SampleRecord, suite: Sequence[ProblemSet], stages: Sequence[str]) -> Iterator[tuple[ProblemSet, Pending]]:
    """By benchmark and checkpoint; only where there are any."""
    for one in suite:
        for stage in stages:
            waiting: Pending = defaultdict(list)
            for sample in record.of(stage, one.name):
                if sample.judge is None and is_for_judge(sample):
                    waiting[sample.prompt_id].append(sample)
            if waiting:
                yield one, waiting


def judge_rest(
    record: SampleRecord, suite: Sequence[ProblemSet], stages: Sequence[str], judge: Judge, at_once: int, after_each: Callable[[], None]
) -> None:
    """Every verdict is on disk before `after_each`, which may stop it, is called; what was judged before is not asked again."""
    for one, waiting in pending(record, suite, stages):
        indices = [index for index, prompt_id in enumerate(one.ids) if prompt_id in waiting]
        for start in range(0, len(indices), at_once):
            rows = [(one.problems[index], sample) for index in indices[start : start + at_once] for sample in waiting[one.ids[index]]]
            samples = [record.whole(key_of(sample)) for _, sample in rows]
            record.put(judged(samples, [problem for problem, _ in rows], judge))
            after_each()
