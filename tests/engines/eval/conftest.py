"""A tiny policy, jobs about it, and one vLLM engine for all tests that do not kill it: starting one takes a minute."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import ray

from benchmark_files import write_benchmark
from model import write_base_model
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.lmms import drawing, replicas
from prism_trainer.engines.lmms.cluster import OBJECT_BYTES

GREEDY = {"topP": 1e-6, "maxResponseTokens": 24}
"""The likeliest token alone is in the nucleus; a temperature of zero is no temperature."""


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base_model(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def cluster():
    """Its processes find the modules that the tests find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=OBJECT_BYTES)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def engines(cluster):
    """Started engines by their arguments."""
    return {}


def empty(of: replicas.Replicas) -> None:
    """Let the engines end what a stopped stage has left under way, instead of ending the engines."""
    for replica in of._replicas:
        while ray.get(replica.actor.exchange.remote([])):
            pass


@pytest.fixture
def shared_engine(engines, monkeypatch):
    """Replicas get an engine that is there already, and leave it there; returns how many questions it is asked."""
    asked = []
    start, questions_of = drawing.start_engine, drawing.Drawing._questions

    def once(*arguments):
        key = repr(arguments)
        if key not in engines:
            engines[key] = start(*arguments)
        return engines[key]

    def counted(*given):
        for question in questions_of(*given):
            asked.append(question)
            yield question

    monkeypatch.setattr(drawing, "start_engine", once)
    monkeypatch.setattr(drawing.Drawing, "_questions", counted)
    monkeypatch.setattr(replicas.Replicas, "close", empty)
    return asked


@pytest.fixture
def job_of(tmp_path, base_dir):
    """Attempt `number` of an evaluation on benchmarks in folders; of two checkpoints, which are one model."""

    def make(*names, number=1, resume_from=None, stages=("sft", "rlvr"), engine="verl", **fields):
        benchmarks = [{"name": name, "uri": str(write_benchmark(name, tmp_path / "data" / name))} for name in names]
        config = {"benchmarks": benchmarks, "seeds": [0, 1], "sampling": GREEDY, "batchSize": 4, **fields}
        return StageJob(
            run="r", stage="evaluation", attempt=number, engine=engine, seed=0, config=EvaluationConfig.model_validate(config),
            config_digest="c", inputs={stage: CheckpointRef(stage=stage, uri=str(base_dir)) for stage in stages},
            output_uri=str(tmp_path / f"out/{engine}/attempt-{number}"), resume_from=resume_from,
            report_dir=str(tmp_path / f"stages/{engine}/attempt-{number}"),
        )  # fmt: skip

    return make
