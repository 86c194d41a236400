"""A judge of the stage's own: real `vllm serve` with a tiny model, which says nothing sensible and must be taken for that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from prism_trainer.contract.configs import Judge as JudgeConfig
from prism_trainer.engines.lmms import evaluation
from prism_trainer.engines.lmms.judge_host import Machine
from prism_trainer.engines.lmms.judge_server import command_of, judge_dir, served
from prism_trainer.engines.lmms.progress import Progress
from prism_trainer.errors import ModelError, PrismError, Stopped
from prism_trainer.evaluation.judge import Case
from prism_trainer.evaluation.marking import Response, mark
from prism_trainer.evaluation.record import SampleRecord, key_of
from prism_trainer.evaluation.suite import open_suite
from prism_trainer.reporting import Reporter
from prism_trainer.responses import parse_response
from prism_trainer.stages import evaluation as local

pytestmark = pytest.mark.long

CPU = Machine(0, 0, 0.9)


@pytest.fixture
def judge_model(base_dir, tmp_path) -> Path:
    """The tiny model, told that it may read as much as a judge is told and says."""
    folder = shutil.copytree(base_dir, tmp_path / "judge")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 4096
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def started_from(folder):
    return [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or ())]


def test_wrong_answers_are_asked_about_nothing_is_asked_again_and_the_server_goes_when_the_stage_is_stopped(job_of, judge_model, tmp_path):
    """The whole of the judge's part, from what the record has to verdicts in it. One test, as a server takes a minute to start."""
    job = job_of("hallusionbench", stages=("sft",), judge={"model": "tiny", "uri": str(judge_model), "timeoutSeconds": 600})
    suite, reporter = open_suite(job, job.config), Reporter(Path(job.report_dir), job.stage, 1)
    record = SampleRecord.open(Path(job.report_dir), "x")
    (one,) = suite
    whole = "<caption>SEEN</caption><think>REASONED</think><answer>it is longer</answer>"
    response = Response(whole, parse_response(whole), 7, was_cut=False)
    for seed in job.config.seeds:
        record.add(mark("sft", one.name, seed, list(one.problems), [response] * len(one.ids)))
    progress = Progress(reporter, record, len(record))
    judge = evaluation.prepare_judge(job, job.config, reporter)
    with judge as asked:
        address = asked._config.base_url
        assert address.startswith("http://127.0.0.1:") and httpx.get(f"{address}/models", timeout=60).status_code == 401
        evaluation.ask(nullcontext(asked), job.config, suite, record, ("sft",), progress)
        reporter._stop.set()
        with pytest.raises(Stopped):
            asked.verdicts([Case("How many?", "7", "eight")])
    assert started_from(judge_model) == []
    samples = record.of("sft", one.name)
    assert len(samples) == 8 and all(sample.judge is not None for sample in samples)
    assert all(sample.correct == (sample.judge == "right") for sample in samples)
    again = SampleRecord.open(Path(job.report_dir), "x")
    assert again.of("sft", one.name) == samples and again.whole(key_of(samples[0])).response == whole
    verdicts = (tmp_path / "stages/verl/verdicts.jsonl").read_text().splitlines()
    assert len(verdicts) == 4  # two seeds of a prompt with one answer: one question
    evaluation.ask(judge, job.config, suite, again, ("sft",), progress)  # which would refuse to be entered a second time


def test_a_server_that_cannot_start_is_a_sentence_with_its_log(judge_model, tmp_path):
    (judge_model / "config.json").write_text(json.dumps({"architectures": ["Nothing"], "max_position_embeddings": 64}))
    config = JudgeConfig(model="tiny", uri=str(judge_model))
    with (
        pytest.raises(ModelError, match=r"judge '.*' cannot be served: vLLM ended with 1 \(.*Error.*\); its log is"),
        served(config, judge_model, 0.9, tmp_path, tmp_path / "log", lambda: False),
    ):
        raise AssertionError("it cannot be there")


def test_a_stop_while_the_server_starts_ends_it(judge_model, tmp_path):
    config = JudgeConfig(model="tiny", uri=str(judge_model))
    with pytest.raises(Stopped), served(config, judge_model, 0.9, tmp_path, tmp_path / "log", lambda: True):
        raise AssertionError("it was asked to stop")
    assert started_from(judge_model) == []


def test_a_server_ends_with_the_stage_also_when_that_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from prism_trainer.engines.lmms.judge_host import Host;"
        "print(Host().start(['sleep', '600'], {}, Path(sys.argv[1])), flush=True); time.sleep(600)"
    )
    stage = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(stage.stdout.readline()))
    stage.kill()
    stage.wait()
    assert psutil.wait_procs([server], timeout=60)[1] == []


def test_in_a_cluster_it_is_served_where_ray_has_the_gpus_and_goes_with_the_stage(tmp_path):
    """A pod's stage container has none; Ray's beside it has them. This machine's are Ray's counters, by whose numbers they are seen."""
    script = (
        "import os, ray, sys; from pathlib import Path; from prism_trainer.engines.lmms.judge_host import host\n"
        "os.environ.pop('RAY_ADDRESS', None)\n"
        f"ray.init(address='local', num_cpus=1, num_gpus=2, include_dashboard=False, object_store_memory={100 * 2**20})\n"
        "os.environ['RAY_ADDRESS'] = ray.get_runtime_context().gcs_address\n"
        "with host() as server:\n"
        "    pid = server.start(['sh', '-c', 'echo sees $CUDA_VISIBLE_DEVICES with $KEY; sleep 600'], {'KEY': 'k'}, Path(sys.argv[1]))\n"
        "    print(pid, server.exit_code(), flush=True)\n"
        "    while not Path(sys.argv[1]).read_text(): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    pid, code = done.stdout.split()[-2:]
    assert code == "None" and not psutil.pid_exists(int(pid))
    assert (tmp_path / "log").read_text() == "sees 0,1 with k\n"


def test_the_judge_of_a_checkpoint_is_its_policy(base_dir, tmp_path):
    shutil.copytree(base_dir, tmp_path / "step-000001/policy")
    assert judge_dir(str(base_dir)) == base_dir
    with pytest.raises(ModelError, match="is not a model directory"):
        judge_dir(str(tmp_path / "step-000001"))


@pytest.mark.parametrize("uri", ["s3://bucket/judge", "hf://org/judge"])
def test_a_judge_that_would_have_to_be_fetched_is_refused(uri):
    with pytest.raises(ModelError, match="is not fetched; give a folder"):
        judge_dir(uri)


GB = 10**9


@pytest.mark.parametrize(
    ("num_gpus", "weights", "split"),
    [(0, 64 * GB, (1, 1)), (1, 64 * GB, (1, 1)), (8, 8 * GB, (1, 8)), (8, 64 * GB, (2, 4)), (8, 144 * GB, (4, 2)), (2, 500 * GB, (2, 1))],
)
def test_a_judge_takes_the_fewest_gpus_that_hold_it_and_as_many_replicas_as_there_is_room_for(num_gpus, weights, split):
    assert Machine(num_gpus, 80 * GB, 0.9).split(weights) == split


def test_the_key_is_not_on_the_command_line_and_gpus_are_told_how_to_be_used(base_dir):
    config = JudgeConfig(model="tiny", uri=str(base_dir))
    one, eight = (" ".join(command_of(config, base_dir, replace(CPU, num_gpus=count, gpu_bytes=80 * GB), 8000)) for count in (1, 8))
    assert "--tensor-parallel-size 1" in one and "--data-parallel-size" not in one and "api-key" not in one
    assert "--data-parallel-size 8" in eight and "--gpu-memory-utilization 0.9" in eight


def test_engine_local_says_that_it_serves_no_judge(job_of, base_dir):
    job = job_of("mathvision", engine="local", judge={"model": "tiny", "uri": str(base_dir)})
    with pytest.raises(PrismError, match=r"config\.judge\.uri is served by engine verl alone"):
        local.open_judge(job, job.config, None)
