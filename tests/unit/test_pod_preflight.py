"""The look at the machines before an engine on several GPUs begins: asked once, and its one sentence ends the attempt."""

import json
import sys

import pytest

from pod_runs import PodRun, commit
from prism_trainer.contract.pod import PodJob
from prism_trainer.job_file import read_job
from prism_trainer.pod.__main__ import _places

ONE_NODE = (sys.executable, "-c", 'print(\'[{"node": "10.0.0.1", "gpus": 8, "cpus": 44}]\')')


@pytest.fixture
def pod(tmp_path):
    return PodRun(tmp_path)


def preflight(text):
    """A process that notes its request beside it and says `text`; the last word of the text is the exit code."""
    text, _, code = text.rpartition(" ")
    program = f"import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.with_suffix('.asked').open('a').write(f.read_text()); print({text!r})"
    return (sys.executable, "-c", f"{program}; sys.exit({code})")


def run(pod, said, engine="verl", behaviour=None, **more):
    job = pod.job(engine=engine, nodes=1, gpus_per_node=8, **more)
    return pod.run(pod.write(job, behaviour, restarts={"UserError": 1}), ray_nodes=ONE_NODE, preflight=said and preflight(said))


def asked(pod):
    file = pod.folder / "work/jobs/sft-preflight.asked"
    return [json.loads(f"{{{text}") for text in file.read_text().split("{")[1:]] if file.exists() else []


def test_a_finding_ends_the_attempt_with_its_class_and_sentence_before_any_step(pod):
    code, result = run(pod, '{"failureClass": "NodeLost", "sentence": "GPU 3 of node 10.0.0.2 does not work"} 1')
    assert (code, result.failure_class, result.message) == (69, "NodeLost", "GPU 3 of node 10.0.0.2 does not work")
    assert pod.steps() == []


def test_a_preflight_that_dies_is_told_with_its_last_words_and_the_way_around_it(pod):
    code, result = run(pod, "summing over the GPUs of 10.0.0.1 3")
    assert (code, result.failure_class) == (69, "NodeLost")
    assert "exit code 3; its last words: summing over the GPUs of 10.0.0.1. PRISM_PREFLIGHT=off" in result.message


def test_it_is_asked_once_an_attempt_and_not_before_each_start_of_the_trainer(pod):
    code, result = run(pod, "all is well 0", behaviour={"fail_at": 2})
    assert code == 0 and len(result.restarts) == 1
    (request,) = asked(pod)
    assert (request["environment"], request["numNodes"], request["gpusPerNode"], request["onCpu"]) == ("sft", 1, 8, False)
    assert request["storageDir"].endswith("checkpoints/sft/attempt-1")
    assert request["reportFile"].endswith("stages/sft/attempt-1/preflight.json")
    assert "preflight: all is well" in (pod.path("stages/sft/attempt-1") / "log.txt").read_text()


def test_it_knows_how_large_the_models_are(pod):
    ref = commit(pod.folder / "base", b"x" * 1000)
    run(pod, "all is well 0", inputs={"policy": ref})
    assert asked(pod)[0]["weightsBytes"] == 1000


@pytest.mark.parametrize(("said", "engine"), [(None, "verl"), ("never asked 1", "local")])
def test_it_is_left_out_where_it_is_switched_off_and_for_engine_local(pod, said, engine):
    code, _ = run(pod, said, engine)
    assert code == 0 and asked(pod) == []


@pytest.mark.parametrize(
    ("environment", "switched_off", "on_cpu"),
    [({}, False, False), ({"PRISM_PREFLIGHT": "off"}, True, False), ({"PRISM_VERL_ON_CPU": "1"}, False, True)],
)
def test_the_environment_switches_it(monkeypatch, environment, switched_off, on_cpu):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ((_places().preflight is None), _places().on_cpu) == (switched_off, on_cpu)


def test_what_is_fetched_for_several_pods_goes_where_all_of_them_see_it(pod):
    one = read_job(pod.write(pod.job()), PodJob)
    assert pod.places().copies_dir(one) == pod.folder / "work"
    assert str(pod.places().copies_dir(one.model_copy(update={"num_nodes": 2}))) == f"{pod.root}/.copies"
