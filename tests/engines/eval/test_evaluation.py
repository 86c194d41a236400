"""The stage evaluation of engine verl: real lmms-eval, real vLLM on the CPU, a tiny model of random weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
import ray

from benchmark_files import NUM_PROMPTS
from prism_trainer.contract.results import EvaluationMeasurement, EvaluationSample
from prism_trainer.engines.lmms import answering, drawing, evaluation
from prism_trainer.errors import DataError, PrismError, Stopped
from prism_trainer.reporting import Reporter
from prism_trainer.stages import evaluation as local


def carry_out(job, stage=evaluation, stop_after=None):
    """The committed results; once `stop_after` answers are there the stage is asked to stop."""

    class Stopping(Reporter):
        @property
        def stop_requested(self):
            file = Path(job.report_dir) / "samples.jsonl"
            return stop_after is not None and file.is_file() and len(file.read_bytes().splitlines()) > stop_after

    ref = stage.run(job, job.config, Stopping(Path(job.report_dir), job.stage, job.attempt))
    folder = Path(ref.uri) / "results"
    rows = [EvaluationMeasurement.model_validate(row) for row in json.loads((folder / "results.json").read_text())]
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return ref, rows, [EvaluationSample.model_validate_json(line) for line in lines]


def test_every_benchmark_gives_a_row_for_each_checkpoint_and_a_line_for_each_response(job_of, shared_engine):
    job = job_of(*NUM_PROMPTS)
    ref, rows, samples = carry_out(job)
    assert [(row.benchmark, row.stage) for row in rows] == [(name, stage) for name in NUM_PROMPTS for stage in ("sft", "rlvr")]
    assert [row.num_prompts for row in rows[::2]] == list(NUM_PROMPTS.values())
    assert len(samples) == ref.step == len(shared_engine) == 2 * 2 * sum(NUM_PROMPTS.values())
    assert all(row.num_seeds == 2 and 0 < row.mean_tokens <= 24 for row in rows)
    (comparison,) = rows[-1].compared
    assert (comparison.against, comparison.difference, comparison.p_value) == ("sft", 0.0, 1.0)
    last = json.loads((Path(job.report_dir) / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == len(samples) and {"accuracy/mathvision/sft", "symbolic/same"} <= last["metrics"].keys()


def test_both_engines_draw_the_same_responses_and_find_the_same(job_of, shared_engine):
    """Kernels round differently, so a token of two nearly equal logits may be another one; most texts agree to the last."""
    names = ("mathvision", "mathverse", "hallusionbench")
    _, rows, ours = carry_out(job_of(*names, stages=("sft",)))
    _, expected, theirs = carry_out(job_of(*names, stages=("sft",), engine="local"), local)
    assert [(one.prompt_id, one.seed, one.question, one.reference) for one in ours] == [
        (one.prompt_id, one.seed, one.question, one.reference) for one in theirs
    ]
    same = sum(one.response == other.response for one, other in zip(ours, theirs, strict=True))
    print(f"{same} of {len(ours)} responses are the same")
    assert same >= 0.9 * len(ours)
    assert [(row.benchmark, row.accuracy, row.num_prompts, row.format_rate) for row in rows] == [
        (row.benchmark, row.accuracy, row.num_prompts, row.format_rate) for row in expected
    ]


@pytest.mark.parametrize("way", ["stopped", "killed", "gone with its folder"])
def test_an_attempt_goes_on_where_another_ended_and_finds_the_same(job_of, tmp_path, shared_engine, way):
    """Sampled with temperature: a response depends on its prompt and seed alone."""
    names, fields = ("mathverse", "hallusionbench"), {"sampling": {"maxResponseTokens": 24}}
    whole, rows, _ = carry_out(job_of(*names, number=9, **fields))
    shutil.rmtree(tmp_path / "stages")
    with pytest.raises(Stopped) as stopped:
        carry_out(job_of(*names, **fields), stop_after=20)
    saved, total = stopped.value.checkpoint, 2 * 2 * (NUM_PROMPTS["mathverse"] + NUM_PROMPTS["hallusionbench"])
    assert saved is not None and 20 <= saved.step < total
    answered = saved.step
    if way == "killed":
        saved, answered = None, answered - 1
        file = tmp_path / "stages/verl/attempt-1/samples.jsonl"
        file.write_bytes(file.read_bytes()[:-7])
    if way == "gone with its folder":
        shutil.rmtree(tmp_path / "stages")
    shared_engine.clear()
    again, found, _ = carry_out(job_of(*names, number=2, resume_from=saved, **fields))
    assert len(shared_engine) == total - answered
    assert found == rows and again.digest == whole.digest


def test_a_replica_that_is_killed_is_started_again_and_its_prompts_are_asked_again(job_of, cluster, monkeypatch):
    """The real engine's process gets a SIGKILL while it draws."""
    pids, started, asked, start = [], [], drawing.Drawing._questions, drawing.start_engine
    monkeypatch.setattr(drawing, "start_engine", lambda *given: started.append(start(*given)) or started[-1])

    def then_kill(*given):
        for number, question in enumerate(asked(*given)):
            if number == 5:
                pids.extend(ray.get(started[0].here.remote())[1])
                os.kill(pids[0], signal.SIGKILL)
            if number == 9:
                pids.extend(ray.get(started[1].here.remote())[1])
            yield question

    monkeypatch.setattr(drawing.Drawing, "_questions", then_kill)
    _, _, samples = carry_out(job_of("wemath", stages=("sft",)))
    assert len(started) == 2 and len(samples) == 2 * NUM_PROMPTS["wemath"]
    assert len(pids) == 2 and not any(map(psutil.pid_exists, pids))


def test_a_prompt_that_is_too_long_is_named(job_of, shared_engine):
    with pytest.raises(DataError, match=r"prompt mathvision:1 cannot be asked: .*maximum model length.*config\.gpu\.maxPromptTokens"):
        carry_out(job_of("mathvision", gpu={"maxPromptTokens": 20}))


def test_a_loop_that_ends_without_results_is_a_failure(job_of, shared_engine, monkeypatch):
    """lmms-eval's command would log what went wrong and exit with 0."""
    from prism_trainer.engines.lmms import harness

    monkeypatch.setattr(harness, "evaluate", lambda *_, **__: {"results": {}, "n-samples": {}})
    with pytest.raises(PrismError, match=r"without results of task 'prism_mathvision_testmini' \(0 of 4 documents"):
        carry_out(job_of("mathvision"))


def test_an_answer_that_lmms_eval_left_out_is_a_failure(job_of, shared_engine, monkeypatch):
    inner = answering.carry_out
    monkeypatch.setattr(answering, "carry_out", lambda *given: {name: value + 0.5 for name, value in inner(*given).items()})
    with pytest.raises(PrismError, match=r"lmms-eval found an accuracy of 0\.500000, the record has 0\.000000"):
        carry_out(job_of("mathvision"))
