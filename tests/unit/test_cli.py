"""`prism`: what a user types and what comes back."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from builders import make_run
from local_runs import LocalRun
from prism_operator.cli import app


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return LocalRun(tmp_path)


def prism(*arguments):
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return found.exit_code, found.stdout, found.stderr


@pytest.mark.parametrize("command", ["run", "validate", "status", "logs", "new", "report"])
def test_every_command_has_help(command):
    code, out, _ = prism(command, "--help")
    assert code == 0 and "Usage" in out


def test_a_valid_file_is_said_to_be_valid(local):
    local.write(make_run().stage("sft"))
    assert prism("validate", "run.yaml")[:2] == (0, "run.yaml: valid; stages sft\n")


def test_three_mistakes_are_reported_at_once_with_lines_and_paths(local):
    (local.folder / "bad.yaml").write_text(
        "apiVersion: prism.dev/v1alpha1\n"
        "kind: PrismRun\n"
        "metadata: {name: demo}\n"
        "spec:\n"
        "  model: {uri: base}\n"
        "  storage: {local: {path: runs/demo}}\n"
        "  stages:\n"
        "    - kind: sft\n"
        "      data: [{uri: sft.jsonl}]\n"
        "      config: {learningRate: 1.0e-5}\n"
        "    - kind: rlvr\n"
        "      policy: stf\n"
        "      data: [{uri: rlvr.jsonl}]\n"
        "      config:\n"
        "        steps: many\n"
    )
    local.write(make_run().stage("sft").stage("rlvr"))
    code, out, err = prism("validate", "bad.yaml")
    assert (code, err) == (1, "prism: 3 problems\n")
    assert [line.split(": ")[:2] for line in out.splitlines()] == [
        ["bad.yaml:10", "spec.stages[0].config.learningRate"],
        ["bad.yaml:12", "spec.stages[1].policy"],
        ["bad.yaml:15", "spec.stages[1].config.steps"],
    ]


def test_what_only_this_machine_lacks_is_left_out_on_request(local):
    local.write(make_run(engine="verl").stage("sft"))
    assert prism("validate", "run.yaml")[0] == 1
    assert prism("validate", "--for", "any", "run.yaml")[0] == 0


def test_a_file_that_is_not_there_is_a_problem(local):
    assert "nowhere.yaml: cannot be read: No such file" in prism("validate", "nowhere.yaml")[1]


def test_a_bad_file_is_not_run(local):
    local.write(make_run(engine="verl").stage("sft"))
    code, _, err = prism("run", "run.yaml")
    assert code == 2 and "spec.engine" in err and "nothing was started" in err and not local.run_dir.exists()


def test_status_prints_kubectls_columns_stages_and_conditions(local):
    local.write(make_run().stage("sft").stage("rlvr"), rlvr={"fail_at": 2}).run()
    code, out, _ = prism("status", "runs/demo")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["NAME", "STAGE", "STATUS", "PROGRESS", "ATTEMPT", "GPUS", "AGE"]
    assert lines[1].split()[:6] == ["demo", "rlvr", "Failed", "75", "1", "0"]
    assert "Failed (UserError): data row 7 has no image" in out and "RLVRSucceeded" in out


@pytest.mark.parametrize("target", ["runs/demo", "run.yaml", "runs"])
def test_a_run_is_found_by_its_folder_its_file_or_the_folder_above(local, target):
    local.write(make_run().stage("sft")).run()
    assert "Succeeded" in prism("status", target)[1]


def test_several_runs_are_a_row_each(local):
    local.write(make_run().stage("sft")).run()
    local.write(make_run("other", storage={"local": {"path": "runs/other"}}).stage("sft")).run()
    assert [line.split()[0] for line in prism("status")[1].splitlines()] == ["NAME", "demo", "other"]


def test_status_prints_the_object_for_machines(local):
    local.write(make_run().stage("sft")).run()
    written = json.loads((local.run_dir / "status.json").read_text())
    assert json.loads(prism("status", "runs/demo", "-o", "json")[1]) == written
    assert yaml.safe_load(prism("status", "runs/demo", "-o", "yaml")[1]) == written
    assert "REASON" in prism("status", "runs/demo", "-o", "wide")[1]


def test_status_tells_the_truth_when_the_runner_was_killed(local):
    runner = local.write(make_run().stage("sft"), sft={"steps": 8, "seconds": 0.05}).start()
    local.process("sft")
    from local_runs import wait_for

    wait_for((local.folder / "runs/demo/status.json").exists)
    runner.kill()
    runner.communicate()
    wait_for(lambda: not local.processes())
    assert local.status()["summary"] in ("Pending", "Running")
    _, out, _ = prism("status", "runs/demo")
    assert out.splitlines()[1].split()[2] == "Stopped" and "run the same command again" in out


def test_status_of_nothing_says_where_it_looked(local):
    code, _, err = prism("status", "runs")
    assert code == 1 and str(local.folder / "runs") in err


def test_logs_are_those_of_the_last_attempt_unless_another_is_named(local):
    local.write(make_run().stage("sft").stage("rlvr"), sft__1={"die_at": 2}).run()
    assert prism("logs", "runs/demo")[1] == "stage rlvr attempt 1 from step 0\n"
    assert prism("logs", "runs/demo", "--stage", "sft", "-f")[1] == "stage sft attempt 2 from step 2\n"
    assert prism("logs", "runs/demo", "--stage", "sft", "--attempt", "1")[1] == "stage sft attempt 1 from step 0\n"
    assert "no log of stage 'sfft'" in prism("logs", "runs/demo", "--stage", "sfft")[2]


@pytest.mark.parametrize("arguments", [("--size", "huge"), ("--algorithm", "ppo")])
def test_new_names_what_there_is_to_choose_from(local, arguments):
    code, _, err = prism("new", *arguments)
    assert code == 2 and "expected" in err


def test_new_overwrites_nothing(local):
    (local.folder / "mine.yaml").write_text("precious")
    assert prism("new", "mine.yaml")[0] == 1 and (local.folder / "mine.yaml").read_text() == "precious"
