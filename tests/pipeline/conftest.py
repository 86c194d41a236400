"""Whole PrismRuns with real, tiny training in child processes: the digits example, shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mini_runs import Run

ROLLOUT = {"groupSize": 4, "maxResponseTokens": 48}


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """Base model and small data sets."""
    import build

    folder = tmp_path_factory.mktemp("digits")
    build.COUNTS = {"curated": 200, "public": 40, "alignment": 48, "rlvr": 48, "test": 40}
    build.build(folder, seed=0)
    return folder


def _run_in(folder: Path, digits: Path, **changes) -> Run:
    """Every stage, seconds each."""
    data = digits / "data"
    rl = {"steps": 4, "promptsPerStep": 4, "microBatchSize": 16, "saveEvery": 1, "rollout": ROLLOUT}
    rl["optimizer"] = {"learningRate": 5.0e-5}
    sft = {"maxSteps": 120, "batchSize": 16, "microBatchSize": 8, "saveEvery": 20, "freezeVision": False, "freezeProjector": False}
    sft["optimizer"] = {"learningRate": 2.0e-3}
    discriminator = {"maxSteps": 6, "batchSize": 16, "microBatchSize": 8, "saveEvery": 2, "evalEvery": 3}
    discriminator["studentSampling"] = {"maxResponseTokens": 48}
    evaluation = {"seeds": [0, 1], "batchSize": 40, "sampling": {"maxResponseTokens": 48}}
    stages = [
        {"kind": "sft", "data": [{"uri": f"{data}/curated.json"}], "config": sft},
        {"kind": "discriminator", "data": [{"uri": f"{data}/alignment.parquet"}], "config": discriminator},
        {"kind": "alignment", "data": [{"uri": f"{data}/alignment.parquet"}], "config": rl},
        {"kind": "rlvr", "data": [{"uri": f"{data}/rlvr.parquet"}], "config": rl},
        {"kind": "evaluation", "data": [{"uri": f"{data}/test.parquet"}], "config": evaluation},
    ]
    spec = {
        "model": {"uri": str(digits / "base")},
        "systemPrompt": "Answer as caption, think, answer.",
        "storage": {"local": {"path": str(folder / "out")}},
        "stages": stages,
        **changes,
    }
    return Run(folder, json.loads(json.dumps(spec)))  # no two stages share a value


@pytest.fixture
def make_run(digits, tmp_path):
    """A run with its own output folder."""
    return lambda name="run", **changes: _run_in(tmp_path / name, digits, **changes)


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory) -> Run:
    """One undisturbed run to the end, made once."""
    run = _run_in(tmp_path_factory.mktemp("reference"), digits)
    code, output = run.finish()
    assert code == 0, output
    return run
