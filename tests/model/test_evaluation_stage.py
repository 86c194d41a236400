"""The stage evaluation from a job to its results, with a tiny model of random weights."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from benchmark_files import NUM_PROMPTS, write_benchmark
from judge_server import JudgeServer
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.results import EvaluationMeasurement, EvaluationSample
from prism_trainer.errors import Stopped
from prism_trainer.reporting import Reporter
from prism_trainer.responses import parse_response
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


def _generated(monkeypatch):
    """How many responses are drawn from here on."""
    drawn = []
    inner = evaluation.sample_responses
    monkeypatch.setattr(evaluation, "sample_responses", lambda *given: drawn.append(len(given[1].token_ids_PT)) or inner(*given))
    return drawn


@pytest.mark.parametrize("way", ["stopped", "killed", "gone with its folder"])
def test_an_attempt_goes_on_where_another_ended_and_finds_the_same(job_of, tmp_path, monkeypatch, way):
    names, chunk = ("mathverse", "hallusionbench"), {"batchSize": 3}
    whole, rows, _ = carry_out(job_of(*names, number=9, **chunk))
    shutil.rmtree(tmp_path / "stages")
    with pytest.raises(Stopped) as stopped:
        carry_out(job_of(*names, **chunk), stop_after=5)
    saved = stopped.value.checkpoint
    assert saved is not None and saved.step == 5
    if way == "killed":
        saved = None
        file = tmp_path / "stages/evaluation/attempt-1/samples.jsonl"
        file.write_bytes(file.read_bytes()[:-7])
    if way == "gone with its folder":
        shutil.rmtree(tmp_path / "stages")
    drawn = _generated(monkeypatch)
    again, found, _ = carry_out(job_of(*names, number=2, resume_from=saved, **chunk))
    total = 2 * 2 * (NUM_PROMPTS["mathverse"] + NUM_PROMPTS["hallusionbench"])
    assert sum(drawn) == total - (13 if way != "killed" else 10)
    assert found == rows and again.digest == whole.digest


def test_what_was_answered_to_other_data_is_asked_again(job_of, tmp_path, monkeypatch):
    carry_out(job_of("mathvision"))
    drawn = _generated(monkeypatch)
    carry_out(job_of("mathvision", number=2))
    assert drawn == []
    job = job_of("mathvision", number=3)
    file = next((tmp_path / "data/mathvision/data").glob("testmini-*"))
    rows = pyarrow.parquet.read_table(file).to_pylist()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**rows[0], "question": "Another?"}, rows[1]]), file)
    carry_out(job)
    assert sum(drawn) == 2 * 2 * NUM_PROMPTS["mathvision"]


def test_a_stop_before_the_first_answer_leaves_no_checkpoint(job_of, monkeypatch):
    monkeypatch.setattr(evaluation, "mark", lambda *_: (_ for _ in ()).throw(Stopped(None)))
    with pytest.raises(Stopped) as stopped:
        carry_out(job_of("mathvision"))
    assert stopped.value.checkpoint is None


def test_the_stage_asks_the_judge_about_answers_only_and_asks_nothing_again_when_it_goes_on(job_of, monkeypatch, tmp_path):
    """The tiny model writes noise, so the responses it would have to learn are put in its place."""
    text = "<caption>SEEN</caption><think>REASONED</think><answer>it is longer</answer>"
    monkeypatch.setattr(evaluation, "decode_responses", lambda _, responses: [text] * len(responses.ended_R))
    monkeypatch.setattr(evaluation, "parse_complete", lambda _, texts: [parse_response(one) for one in texts])
    with JudgeServer(lambda case: "right" if "line 0" in case["question"] else "wrong") as server:
        judge = {"model": "j", "baseUrl": server.url}
        _, rows, samples = carry_out(job_of("hallusionbench", judge=judge))
        first = len(server.asked)
        shutil.rmtree(tmp_path / "stages/evaluation/attempt-1")
        _, again, _ = carry_out(job_of("hallusionbench", number=2, judge=judge))
    assert (rows[0].accuracy, rows[0].rule_accuracy) == (0.5, 0.0) and again == rows
    assert {sample.judge for sample in samples} == {"right", "wrong"}
    assert len(server.asked) == first == 4  # two questions with two right answers; seeds and checkpoints answer alike
    assert not any("SEEN" in str(body) or "REASONED" in str(body) for body in server.bodies)


def test_the_verdicts_of_formulas_are_counted_among_the_metrics(job_of):
    job = job_of("mathvision")
    carry_out(job)
    last = json.loads((Path(job.report_dir) / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
    assert {"symbolic/same", "symbolic/cut_by_time", "accuracy/mathvision/sft", "format_rate/mathvision/rlvr"} <= last.keys()
