"""The stage evaluation from a job to its results, with a tiny model of random weights."""

import json
from pathlib import Path

import pytest

from benchmark_files import NUM_PROMPTS, write_benchmark
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.results import EvaluationMeasurement, EvaluationSample
from prism_trainer.reporting import Reporter
from prism_trainer.stages import evaluation


@pytest.fixture
def job_of(tmp_path, base_dir):
    """Attempt `number` of an evaluation of two checkpoints, which are one model, on benchmarks in folders."""

    def make(*names, number=1, resume_from=None, **fields):
        benchmarks = [{"name": name, "uri": str(write_benchmark(name, tmp_path / "data" / name))} for name in names]
        config = {"benchmarks": benchmarks, "seeds": [0, 1], "sampling": {"maxResponseTokens": 6}, **fields}
        inputs = {stage: CheckpointRef(stage=stage, uri=str(base_dir)) for stage in ("sft", "rlvr")}
        return StageJob(
            run="r", stage="evaluation", attempt=number, engine="local", seed=0, config=EvaluationConfig.model_validate(config),
            config_digest="c", inputs=inputs, output_uri=str(tmp_path / f"out/attempt-{number}"), resume_from=resume_from,
            report_dir=str(tmp_path / f"stages/evaluation/attempt-{number}"),
        )  # fmt: skip

    return make


def carry_out(job, stop_after=None):
    """The committed results; `stop_after` steps the stage is asked to stop."""

    class Stopping(Reporter):
        def step(self, step, metrics):
            super().step(step, metrics)
            if stop_after is not None and step >= stop_after:
                self._stop.set()

    reporter = Stopping(Path(job.report_dir), job.stage, job.attempt)
    ref = evaluation.run(job, job.config, reporter)
    folder = Path(ref.uri) / "results"
    rows = [EvaluationMeasurement.model_validate(row) for row in json.loads((folder / "results.json").read_text())]
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return ref, rows, [EvaluationSample.model_validate_json(line) for line in lines]


def test_every_benchmark_gives_a_row_for_each_checkpoint_and_a_line_for_each_response(job_of):
    _, rows, samples = carry_out(job_of(*NUM_PROMPTS))
    assert [(row.benchmark, row.stage) for row in rows] == [(name, stage) for name in NUM_PROMPTS for stage in ("sft", "rlvr")]
    assert [row.num_prompts for row in rows[::2]] == list(NUM_PROMPTS.values())
    assert len(samples) == 2 * 2 * sum(NUM_PROMPTS.values())
    assert all(row.num_seeds == 2 and 0 < row.mean_tokens <= 6 for row in rows)


def test_two_checkpoints_that_are_one_model_differ_by_nothing(job_of):
    _, rows, samples = carry_out(job_of("hallusionbench"))
    one, other = ([(s.prompt_id, s.seed, s.response) for s in samples if s.stage == stage] for stage in ("sft", "rlvr"))
    assert one == other and rows[0].compared == ()
    (comparison,) = rows[1].compared
    assert (comparison.against, comparison.difference, comparison.p_value) == ("sft", 0.0, 1.0)
