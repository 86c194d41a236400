"""The one file a stage is started with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import StageConfig
from prism_trainer.contract.schema import Frozen

Engine = Literal["local", "verl"]

PRISM_SYSTEM_PROMPT = """You are a helpful scientific assistant.
Answer the user's question based on the image provided.

Your output must strictly follow this XML format:

<caption>
- [Briefly describe the image style, key objects, and text using bullet points]
</caption>
<think>
[Reason step-by-step to solve the problem]
</think>
<answer>
[Final answer ONLY]
</answer>
"""


class DataSource(Frozen):
    """A data set."""

    uri: str = Field(
        min_length=1,
        description="File (.json, .jsonl, .parquet), pattern with * or folder: path, s3:// or hf://datasets/ORG/NAME[/PATH]; or ORG/NAME.",
    )
    revision: str | None = Field(None, description="Revision, for a Hugging Face id.")
    weight: float | None = Field(
        None, gt=0, description="Share of the mixture, relative to the stage's other sets. By default the set's number of rows."
    )


class StageJob(Frozen):
    """One attempt of one stage: every choice made, nothing left to look up."""

    run: str = Field(description="Name of the PrismRun.")
    stage: str = Field(description="Name of the stage.")
    attempt: int = Field(ge=1, description="Counts from 1; part of every path the attempt writes to.")
    engine: Engine = Field(description="Who carries the stage out.")
    seed: int = Field(description="Seed of the run.")
    system_prompt: str = Field(PRISM_SYSTEM_PROMPT, description="Put before every prompt that has none.")
    config: StageConfig
    config_digest: str = Field(description="Digest of config, inputs and data; only checkpoints with it can be resumed from.")
    inputs: dict[str, CheckpointRef] = Field(
        default_factory=dict, description="By role: `policy`, `discriminator`; for evaluation, by the name of the stage evaluated."
    )
    data: tuple[DataSource, ...] = Field((), description="The stage's data sets.")
    output_uri: str = Field(description="Folder of this attempt's checkpoints: step-000040/ and so on.")
    resume_from: CheckpointRef | None = Field(None, description="Checkpoint of an earlier attempt to go on from.")
    report_dir: str = Field(description="Local folder for progress.json, metrics.jsonl, samples and result.json.")
    keep_intermediate: int = Field(1, ge=1, description="Resumable checkpoints kept.")
    threads: int | None = Field(None, ge=1, description="CPU threads; by default all cores.")
    nodes: int = Field(1, ge=1, description="Machines of the attempt, the Ray head's among them.")
    gpus_per_node: int = Field(0, ge=0, description="GPUs on each.")
