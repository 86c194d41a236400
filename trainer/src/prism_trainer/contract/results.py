"""What an evaluation found: one row a checkpoint in `results.json`, one line a response in `samples.jsonl`.

Fields keep their snake_case names in these files, because people load them into data frames.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

RESULTS = "results.json"
EVALUATION_SAMPLES = "samples.jsonl"


class EvaluationRow(BaseModel):
    """One checkpoint, measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str = Field(description="Stage that made the checkpoint.")
    steps: int = Field(description="Optimizer steps of that stage.")
    seconds: float = Field(description="Training time of that stage.")
    accuracy: float = Field(description="Share of right answers in the right format, over all prompts and seeds.")
    ci_low: float = Field(description="Lower end of the confidence interval: bootstrap over prompts.")
    ci_high: float = Field(description="Upper end.")
    format_rate: float = Field(description="Share of responses in the right format.")
    mean_tokens: float = Field(description="Response tokens, mean.")
    num_prompts: int
    num_seeds: int
    manifest: str = Field(description="Digest of the checkpoint's manifest.")


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
