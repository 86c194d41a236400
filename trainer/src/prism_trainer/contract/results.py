"""What an evaluation found: one row a checkpoint and benchmark in `results.json`, one line a response in `samples.jsonl`.

There are two `results.json`. The one inside the evaluation's checkpoint holds measurements only, so that measuring the same again gives
the same digest; the one of the run adds the time that each checkpoint took to train.

Fields keep their snake_case names in these files, because people load them into data frames.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RESULTS = "results.json"
EVALUATION_SAMPLES = "samples.jsonl"
HELD_OUT = ""
"""In the place of a benchmark's name: the stage's own data."""


class Score(BaseModel):
    """A share in [0, 1] with its confidence interval: bootstrap over problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    ci_low: float
    ci_high: float


class Comparison(BaseModel):
    """A checkpoint against an earlier one on the same prompts and seeds, paired by problem."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    against: str = Field(description="Stage that made the other checkpoint.")
    difference: float = Field(description="Accuracy of this checkpoint minus that of the other.")
    ci_low: float = Field(description="Lower end of the difference's confidence interval: paired bootstrap over problems.")
    ci_high: float = Field(description="Upper end.")
    p_value: float = Field(description="Two-sided, sign-flip permutation over problems; not corrected for the number of comparisons.")


class EvaluationMeasurement(BaseModel):
    """One checkpoint on one benchmark: a row of the evaluation's payload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str = Field(description="Stage that made the checkpoint.")
    benchmark: str = Field(HELD_OUT, description="Name of the benchmark; empty for the stage's own data.")
    steps: int = Field(description="Optimizer steps of that stage.")
    accuracy: float = Field(description="The benchmark's column: share of right answers in the right format, over all prompts and seeds.")
    ci_low: float = Field(description="Lower end of the confidence interval: bootstrap over problems.")
    ci_high: float = Field(description="Upper end.")
    format_rate: float = Field(description="Share of responses in the right format.")
    mean_tokens: float = Field(description="Response tokens, mean.")
    cut_rate: float = Field(0.0, description="Share of responses that were cut at the length limit.")
    rule_accuracy: float | None = Field(None, description="The same column by the rules alone; none where no judge was asked.")
    num_prompts: int
    num_seeds: int
    seed_accuracy: tuple[float, ...] = Field((), description="The column for each seed alone.")
    scores: dict[str, Score] = Field(default_factory=dict, description="Sub-scores of the benchmark, by name.")
    compared: tuple[Comparison, ...] = Field((), description="With every checkpoint evaluated before it.")
    manifest: str = Field(description="Digest of the checkpoint's manifest; empty for a plain model.")


class EvaluationRow(EvaluationMeasurement):
    """A row of the run's `results.json`."""

    seconds: float = Field(description="Training time of that stage; 0 for a plain model.")


class EvaluationSample(BaseModel):
    """One response to one prompt, with all that its scores are computed from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    benchmark: str = Field(HELD_OUT, description="Name of the benchmark; empty for the stage's own data.")
    prompt_id: str
    seed: int
    question: str
    response: str
    reference: str = Field(description="The right answer.")
    answer: str | None = Field(description="What was extracted; none where the format is wrong.")
    correct: bool = Field(description="What counts: by the rules, or by the judge where they said no.")
    judge: Literal["right", "wrong", "unclear"] | None = Field(
        None, description="What the judge said; none where it was not asked: the rules decided."
    )
    format_valid: bool
    num_tokens: int
    was_cut: bool = Field(False, description="Whether it reached the length limit.")
    unit: str = Field("", description="Problem that the prompt belongs to; several prompts may ask about one.")
    labels: dict[str, str] = Field(default_factory=dict, description="What sub-scores are made by, such as the version of the problem.")
