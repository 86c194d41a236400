"""What an evaluation found: one row a checkpoint in `results.json`, one line a response in `samples.jsonl`.

There are two `results.json`. The one inside the evaluation's checkpoint holds measurements only, so that measuring the same again gives
the same digest; the one of the run adds the time that each checkpoint took to train.

Fields keep their snake_case names in these files, because people load them into data frames.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

RESULTS = "results.json"
EVALUATION_SAMPLES = "samples.jsonl"


class EvaluationMeasurement(BaseModel):
    """One checkpoint, measured: a row of the evaluation's payload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str = Field(description="Stage that made the checkpoint.")
    steps: int = Field(description="Optimizer steps of that stage.")
    accuracy: float = Field(description="Share of right answers in the right format, over all prompts and seeds.")
    ci_low: float = Field(description="Lower end of the confidence interval: bootstrap over prompts.")
    ci_high: float = Field(description="Upper end.")
    format_rate: float = Field(description="Share of responses in the right format.")
    mean_tokens: float = Field(description="Response tokens, mean.")
    num_prompts: int
    num_seeds: int
    manifest: str = Field(description="Digest of the checkpoint's manifest; empty for a plain model.")


class EvaluationRow(EvaluationMeasurement):
    """A row of the run's `results.json`."""

    seconds: float = Field(description="Training time of that stage; 0 for a plain model.")


class EvaluationSample(BaseModel):
    """One response to one held-out prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    prompt_id: str
    seed: int
    question: str
    response: str
    reference: str = Field(description="The right answer.")
    answer: str | None = Field(description="What was extracted; none where the format is wrong.")
    correct: bool
    format_valid: bool
    num_tokens: int
