"""A whole PrismRun on engine verl, as a user without a GPU tries it: `prism run`, a Python for each library, a tiny model on the CPU."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from mini_runs import Run, kill, wait_until
from prism_operator.local.interpreters import VARIABLE
from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.environments import ON_CPU

ROOT = Path(__file__).parents[3]
FOLDERS = {"sft": ".venv-sft", "rl": ".venv-verl", "eval": ".venv-eval"}
KINDS = ("sft", "discriminator", "alignment", "rlvr", "evaluation")
START_SECONDS = 900.0
"""For sft, the warm-up, and the start of verl, Ray and vLLM on a machine that has other things to do."""


@pytest.fixture(autouse=True)
def pythons(monkeypatch) -> dict[str, str]:
    """By environment; those of `make test-engines`, or whatever the variables name."""
    found = {name: os.environ.get(VARIABLE[name]) or str(ROOT / folder / "bin/python") for name, folder in FOLDERS.items()}
    for name, python in found.items():
        if not Path(python).is_file():
            pytest.skip(f"There is no {python}: `make test-engines` makes it, or {VARIABLE[name]} names another.")
        monkeypatch.setenv(VARIABLE[name], python)
    return found


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    import build

    folder = tmp_path_factory.mktemp("digits")
    build.COUNTS = {"curated": 200, "public": 8, "alignment": 24, "rlvr": 24, "test": 4}
    build.build(folder, seed=0)
    return folder


@pytest.fixture
def run(digits, tmp_path) -> Run:
    """Few steps, and just enough of them in sft for answers of the right format."""
    data = digits / "data"
    sft = {"maxSteps": 60, "batchSize": 16, "microBatchSize": 8, "freezeVision": False, "freezeProjector": False}
    steps = {"steps": 2, "promptsPerStep": 3, "microBatchSize": 8, "saveEvery": 1, "rollout": {"groupSize": 4, "maxResponseTokens": 48}}
    verl = {**steps, "gpu": {"maxPromptTokens": 128, "tokensPerGpu": 512, "rolloutSequences": 32}}
    configs = {
        "sft": ("curated.json", {**sft, "optimizer": {"learningRate": 2.0e-3}}),
        "discriminator": ("alignment.parquet", {"maxSteps": 2, "batchSize": 8, "microBatchSize": 8}),
        "alignment": ("alignment.parquet", verl),
        "rlvr": ("rlvr.parquet", verl),
        "evaluation": ("test.parquet", {"seeds": [0], "sampling": {"maxResponseTokens": 48}}),
    }
    spec = {
        "engine": "verl",
        "env": [{"name": ON_CPU, "value": "1"}],
        "model": {"uri": str(digits / "base")},
        "systemPrompt": "Answer as caption, think, answer.",
        "storage": {"local": {"path": str(tmp_path / "out")}},
        "stages": [{"kind": kind, "data": [{"uri": f"{data}/{file}"}], "config": config} for kind, (file, config) in configs.items()],
    }
    return Run(tmp_path, json.loads(json.dumps(spec)))


def test_a_python_without_a_stages_library_is_told_before_anything_starts(run, pythons, monkeypatch):
    monkeypatch.setenv(VARIABLE["eval"], pythons["sft"])
    code, output = run.finish()
    assert code == 2 and f"PRISM_PYTHON_EVAL names '{pythons['sft']}', which has no lmms-eval" in output
    assert not (run.folder / "out").exists()


def test_without_a_gpu_it_says_once_what_can_be_done(run):
    del run.spec["env"]
    code, output = run.finish()
    assert code == 2 and output.count("engine 'verl' computes on GPUs, and found 0") == 1 and f'set {ON_CPU} to "1"' in output


@pytest.mark.long
def test_a_run_goes_through_every_stage_and_a_stage_killed_midway_goes_on(run):
    """alignment is killed with its Ray and vLLM when its first step is saved."""
    process = run.start()
    step = run.folder / "out/checkpoints/alignment/attempt-1/step-000001/manifest.json"
    assert wait_until(lambda: step.exists() or process.poll() is not None, START_SECONDS) and step.exists(), process.communicate()[0]
    [stage] = [one for one in run.stage_processes() if one.pid == os.getsid(one.pid)]
    kill(stage)
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output

    finals = run.finals()
    assert {kind: attempt for kind, (_, attempt) in finals.items()} == {**dict.fromkeys(KINDS, 1), "alignment": 2}
    metrics = [json.loads(line) for line in (run.folder / "out/stages/alignment/attempt-2/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [2], "it goes on at the next step"
    [policy] = (run.folder / "out/checkpoints/rlvr").glob("attempt-1/step-*/policy")
    assert AutoModelForImageTextToText.from_pretrained(policy).config.model_type == "qwen3_vl"
    parents = {parent.stage for parent in read_manifest(policy.parent).parents}
    assert parents == {"alignment"}
    rows = json.loads((run.folder / "out/results.json").read_text())
    assert [row["stage"] for row in rows] == ["sft", "alignment", "rlvr"] and rows[0]["format_rate"] > 0
    assert (run.folder / "out/report.html").stat().st_size > 10_000
    assert not run.stage_processes()
    shutil.rmtree(run.folder)
