"""From answers to rows: every checkpoint on every benchmark, its sub-scores, and how it differs from the checkpoints before it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.results import RESULTS, Comparison, EvaluationMeasurement, EvaluationSample, Score
from prism_trainer.evaluation.record import SampleRecord
from prism_trainer.evaluation.resampling import Array, Resampling, interval, sign_flip_p_value
from prism_trainer.evaluation.scores import ACCURACY, Scorer, shares
from prism_trainer.evaluation.suite import ProblemSet
from prism_trainer.seeds import seed_for


@dataclass(frozen=True)
class Tally:
    """What each unit gave to each score, summed over seeds: name -> (numerators (U,), denominators (U,))."""

    ratios: dict[str, tuple[Array, Array]]

    @classmethod
    def of(cls, samples: Sequence[EvaluationSample], scores: Scorer, units: Sequence[str]) -> Tally:
        position = {unit: index for index, unit in enumerate(units)}
        ratios: dict[str, tuple[Array, Array]] = defaultdict(lambda: (np.zeros(len(units)), np.zeros(len(units))))
        for (unit, _), group in _grouped(samples).items():
            for name, (above, below) in scores(group).items():
                numerators, denominators = ratios[name]
                numerators[position[unit]] += above
                denominators[position[unit]] += below
        return cls(dict(sorted(ratios.items())))

    def value(self, name: str) -> float:
        above, below = self.ratios[name]
        return float(above.sum() / below.sum()) if below.sum() else 0.0


@dataclass(frozen=True)
class Answers:
    """All answers of one checkpoint to one benchmark."""

    stage: str
    ref: CheckpointRef
    samples: Sequence[EvaluationSample]


def summarise(
    benchmark: str, answered: Sequence[Answers], config: EvaluationConfig, seed: int, scores: Scorer = shares, column: str = ACCURACY
) -> list[EvaluationMeasurement]:
    """A row for each checkpoint, in order. All have answered the same prompts with the same seeds, so that they pair."""
    units = sorted({sample.unit for sample in answered[0].samples})
    resampling = Resampling.of(len(units), seed_for(seed, "bootstrap", benchmark))
    tallies = [Tally.of(one.samples, scores, units) for one in answered]
    rows = []
    for number, (one, tally) in enumerate(zip(answered, tallies, strict=True)):
        earlier = zip(answered[:number], tallies[:number], strict=True)
        compared = tuple(_compare(other.stage, before, tally, column, resampling, config, seed) for other, before in earlier)
        rows.append(_row(benchmark, one, tally, scores, column, resampling, config, compared))
    return rows


def measure(
    job: StageJob, config: EvaluationConfig, suite: Iterable[ProblemSet], record: SampleRecord, stages: Sequence[str]
) -> list[EvaluationMeasurement]:
    """The rows of `stages`, benchmark by benchmark."""
    rows = []
    for one in suite:
        answered = [Answers(stage, job.inputs[stage], record.of(stage, one.name)) for stage in stages]
        rows += summarise(one.name, answered, config, job.seed, one.scores, one.column)
    return rows


def metrics_of(row: EvaluationMeasurement) -> Iterator[tuple[str, float]]:
    """For progress and provenance."""
    place = f"{row.benchmark}/{row.stage}" if row.benchmark else row.stage
    yield f"accuracy/{place}", row.accuracy
    yield f"format_rate/{place}", row.format_rate


def write_results(folder: Path, rows: Iterable[EvaluationMeasurement], record: SampleRecord) -> None:
    """The payload of the evaluation's checkpoint: rows, and every response with its text."""
    (folder / RESULTS).write_text(json.dumps([row.model_dump() for row in rows], indent=2))
    record.save(folder, with_head=False)


def _row(
    benchmark: str,
    one: Answers,
    tally: Tally,
    scores: Scorer,
    column: str,
    resampling: Resampling,
    config: EvaluationConfig,
    compared: tuple[Comparison, ...],
) -> EvaluationMeasurement:
    samples = one.samples
    found = {name: _score(tally, name, resampling, config.confidence) for name in tally.ratios}
    manifest = read_manifest(Path(one.ref.uri)) if one.ref.digest else None
    return EvaluationMeasurement(
        stage=one.stage,
        benchmark=benchmark,
        steps=manifest.step if manifest else 0,
        accuracy=found[column].value,
        ci_low=found[column].ci_low,
        ci_high=found[column].ci_high,
        format_rate=float(np.mean([sample.format_valid for sample in samples])),
        mean_tokens=float(np.mean([sample.num_tokens for sample in samples])),
        cut_rate=float(np.mean([sample.was_cut for sample in samples])),
        rule_accuracy=_by_rules(samples, scores, column) if config.judge else None,
        num_prompts=len({sample.prompt_id for sample in samples}),
        num_seeds=len(config.seeds),
        seed_accuracy=tuple(_of_seed(samples, number, scores, column) for number in config.seeds),
        scores={name: score for name, score in found.items() if len(found) > 1},
        compared=compared,
        manifest=one.ref.digest or "",
    )


def _score(tally: Tally, name: str, resampling: Resampling, confidence: float) -> Score:
    low, high = interval(resampling.ratio(*tally.ratios[name]), confidence)
    return Score(value=tally.value(name), ci_low=low, ci_high=high)


def _compare(
    against: str, before: Tally, after: Tally, column: str, resampling: Resampling, config: EvaluationConfig, seed: int
) -> Comparison:
    """The column's denominators are the prompts' and so the same for both: the differences per unit are those of the numerators."""
    draws = resampling.ratio(*after.ratios[column]) - resampling.ratio(*before.ratios[column])
    low, high = interval(draws, config.confidence)
    differences = after.ratios[column][0] - before.ratios[column][0]
    return Comparison(
        against=against,
        difference=after.value(column) - before.value(column),
        ci_low=low,
        ci_high=high,
        p_value=sign_flip_p_value(differences, seed_for(seed, "permutation", against)),
    )


def _of_seed(samples: Sequence[EvaluationSample], seed: int, scores: Scorer, column: str) -> float:
    return _value([sample for sample in samples if sample.seed == seed], scores, column)


def _by_rules(samples: Sequence[EvaluationSample], scores: Scorer, column: str) -> float:
    """The column as if no judge had been asked."""
    judged = [sample.model_copy(update={"correct": sample.correct if sample.judge is None else False}) for sample in samples]
    return _value(judged, scores, column)


def _value(samples: Sequence[EvaluationSample], scores: Scorer, column: str) -> float:
    ratios = [scores(group)[column] for group in _grouped(samples).values()]
    return sum(above for above, _ in ratios) / sum(below for _, below in ratios)


def _grouped(samples: Sequence[EvaluationSample]) -> dict[tuple[str, int], list[EvaluationSample]]:
    """By unit and seed."""
    groups: dict[tuple[str, int], list[EvaluationSample]] = defaultdict(list)
    for sample in samples:
        groups[sample.unit, sample.seed].append(sample)
    return groups
