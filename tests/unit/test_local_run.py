"""`prism run` with real processes and a stand-in stage: what survives what."""

import json
import os
import signal
import sys
import time
from contextlib import suppress

import psutil
import pytest

from builders import make_pipeline, make_run
from local_runs import LocalRun, wait_for
from prism_operator.errors import RunFolderError
from prism_operator.local.files import last_words
from prism_operator.local.interpreters import Interpreter
from prism_operator.local.machine import Machine
from prism_operator.local.runner import run_locally
from prism_operator.validate import validate_file
from stand_in_runner import STAND_IN


@pytest.fixture
def local(tmp_path):
    run = LocalRun(tmp_path)
    yield run
    assert wait_for(lambda: not run.processes()), "no process is left behind"


def two(**spec):
    return make_run(**spec).stage("sft").stage("rlvr")


def test_a_pipeline_runs_through_and_leaves_what_it_promised(local):
    ended = local.write(make_pipeline()).run()
    assert ended.exit_code == 0
    assert sorted(local.manifests()) == ["alignment", "discriminator", "evaluation", "rlvr", "sft"]
    (row,) = json.loads((local.run_dir / "results.json").read_text())
    sft = local.manifests()["sft"][0]
    expected = {"stage": "sft", "steps": 4, "seconds": sft["provenance"]["seconds"], "accuracy": 0.5, "manifest": sft["digest"]}
    assert list(row.items()) == list(expected.items()) and row["seconds"] > 0
    assert local.status()["summary"] == "Succeeded" and (local.run_dir / "prismrun.yaml").exists()
    assert not list(local.run_dir.glob("checkpoints/*/*/step-000001")), "intermediate checkpoints are gone"


def test_a_complete_run_run_again_does_nothing(local):
    local.write(make_run().stage("sft")).run()
    before = (local.run_dir / "status.json").read_text()
    assert local.run().exit_code == 0
    assert local.attempts("sft") == ["attempt-1"] and (local.run_dir / "status.json").read_text() == before


def test_each_stage_names_the_manifest_it_was_made_from(local):
    local.write(two()).run()
    sft, rlvr = (local.manifests()[stage][0] for stage in ("sft", "rlvr"))
    assert rlvr["parents"] == [{"stage": "sft", "digest": sft["digest"]}]


def test_a_killed_stage_goes_on_from_its_last_checkpoint(local):
    assert local.write(make_run().stage("sft"), sft__1={"die_at": 2}).run().exit_code == 0
    assert (local.steps("sft", 1), local.steps("sft", 2)) == ([1, 2], [3])


def test_a_final_checkpoint_counts_also_when_its_process_died_before_it_could_say_so(local):
    assert local.write(two(), sft={"die_after_final": True}).run().exit_code == 0
    assert local.attempts("sft") == ["attempt-1"]


def test_a_failed_stage_ends_the_run_with_one_clear_sentence(local):
    ended = local.write(two(), sft={"fail_at": 2}).run()
    assert ended.exit_code == 1 and local.attempts("rlvr") == []
    for part in ("'sft'", "attempt 1", "UserError", "data row 7 has no image", "log.txt", "run again"):
        assert part in ended.status.message


def test_an_exit_without_a_result_is_told_with_its_last_words(local):
    ended = local.write(make_run().stage("sft"), sft={"exit_at": 1, "code": 1}).run()
    assert ended.exit_code == 1 and "RuntimeError: the stand-in was told to exit" in ended.status.message


def test_last_words_have_no_colours(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("\x1b[36m(WorkerDict pid=7)\x1b[0m no accelerator\n\x1b[0m\n")
    assert last_words(log) == "(WorkerDict pid=7) no accelerator"


def test_running_again_forgives_and_goes_on(local):
    local.write(two(), sft__1={"fail_at": 2}).run()
    assert local.run().exit_code == 0
    assert local.steps("sft", 2) == [3]


def test_a_budget_is_spent_within_one_invocation(local):
    ended = local.write(make_run(retries={"userError": 1}).stage("sft"), sft={"fail_at": 1}, sft__2={"fail_at": 2}).run()
    assert ended.exit_code == 1 and local.attempts("sft") == ["attempt-1", "attempt-2"]


@pytest.mark.parametrize("deaf", [False, True], ids=["stops when asked", "deaf"])
def test_a_hang_is_stopped_and_tried_again(local, deaf):
    run = make_run(deadlines={"progressSeconds": 1, "stopGraceSeconds": 1}).stage("sft")
    assert local.write(run, sft__1={"hang_at": 2, "deaf": deaf}).run().exit_code == 0
    attempt = local.status()["stages"][0]["attempts"][0]
    assert (attempt["failureClass"], local.steps("sft", 2)) == ("Hang", [3])


def test_a_stage_that_takes_too_long_is_stopped_for_good(local):
    run = make_run(deadlines={"stageSeconds": 1, "stopGraceSeconds": 5}).stage("sft")
    ended = local.write(run, sft={"steps": 1000}).run()
    assert ended.exit_code == 1 and "DeadlineExceeded" in ended.status.message


def test_a_run_that_takes_too_long_is_stopped_for_good(local):
    run = make_run(deadlines={"runSeconds": 1, "stopGraceSeconds": 5}).stage("sft")
    ended = local.write(run, sft={"steps": 1000}).run()
    assert ended.exit_code == 1 and "spec.deadlines.runSeconds (1 s)" in ended.status.message


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_request_to_stop_saves_first_and_the_next_run_goes_on(local, number, code):
    runner = local.write(make_run().stage("sft"), sft={"steps": 30, "seconds": 0.05}).start()
    wait_for(lambda: len(local.steps("sft", 1)) >= 3)
    runner.send_signal(number)
    told = runner.communicate(timeout=20)[0]
    assert runner.returncode == code and "run the same command again" in told
    assert (local.status()["summary"], local.status()["stages"][0]["state"]) == ("Stopped", "Stopped")
    assert local.run().exit_code == 0
    assert local.steps("sft", 1) + local.steps("sft", 2) == list(range(1, 30))


def test_a_second_interrupt_kills(local):
    runner = local.write(make_run().stage("sft"), sft={"steps": 1000, "deaf": True}).start()
    wait_for(lambda: local.steps("sft", 1))
    runner.send_signal(signal.SIGINT)
    wait_for(lambda: local.status()["summary"] == "Stopping")
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=20)
    assert runner.returncode == 130


def test_a_killed_runner_is_followed_by_one_that_waits_for_the_old_stage(local):
    runner = local.write(two(), sft={"steps": 20, "seconds": 0.1}).start()
    wait_for(lambda: len(local.steps("sft", 1)) >= 2)
    runner.kill()
    runner.communicate()
    assert local.run().exit_code == 0
    assert local.steps("sft", 1) + local.steps("sft", 2) == list(range(1, 20))
    assert [attempt["outcome"] for attempt in local.status()["stages"][0]["attempts"]] == ["Stopped", "Succeeded"]


def test_a_stage_whose_pid_was_never_written_down_is_found(local):
    runner = local.write(make_run().stage("sft"), sft={"steps": 20, "seconds": 0.1}).start()
    wait_for(lambda: len(local.steps("sft", 1)) >= 2)
    runner.kill()
    runner.communicate()
    (local.run_dir / "stages/sft/attempt-1/process.json").unlink()
    assert local.run().exit_code == 0
    assert local.steps("sft", 1) + local.steps("sft", 2) == list(range(1, 20))


def test_two_runners_do_not_share_a_folder(local):
    first = local.write(make_run().stage("sft"), sft={"steps": 1000}).start()
    wait_for(lambda: local.steps("sft", 1))
    second = local.start()
    assert "another `prism run` works in" in second.communicate(timeout=20)[0] and second.returncode == 1
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=20)


def test_what_a_stage_leaves_in_its_session_is_ended_with_it(local):
    assert local.write(make_run().stage("sft"), sft={"child": True}).run().exit_code == 0
    assert wait_for(lambda: not local.processes(), 5)


def test_a_changed_configuration_is_refused_until_it_may_be_redone(local):
    local.write(two()).run()
    changed = make_run().stage("sft", config={"optimizer": {"learningRate": 0.5}}).stage("rlvr")
    refused = local.write(changed).run()
    assert refused.exit_code == 1 and "'sft', 'rlvr'" in refused.status.message and "--redo" in refused.status.message
    assert local.attempts("sft") == ["attempt-1"]
    assert local.run(redo=True).exit_code == 0
    assert local.attempts("sft") == local.attempts("rlvr") == ["attempt-1", "attempt-2"]
    assert local.write(two()).run().exit_code == 0
    assert local.attempts("sft") == ["attempt-1", "attempt-2"], "the first configuration is still done"


def test_the_results_of_a_run_are_those_of_the_evaluation_that_was_done_again(local):
    def accuracy(**config):
        local.write(make_run().stage("sft").stage("evaluation", config=config), evaluation__1={"accuracy": 0.4}).run(redo=True)
        return json.loads((local.run_dir / "results.json").read_text())[0]["accuracy"]

    assert [accuracy(), accuracy(seeds=[7])] == [0.4, 0.5]


def test_a_stage_added_later_starts_from_what_is_done(local):
    local.write(make_run().stage("sft")).run()
    assert local.write(two()).run().exit_code == 0
    assert (local.attempts("sft"), local.attempts("rlvr")) == (["attempt-1"], ["attempt-1"])


def test_a_damaged_manifest_counts_for_nothing_and_stays(local):
    local.write(make_run().stage("sft")).run()
    manifest = next(local.run_dir.glob("checkpoints/sft/attempt-1/*/manifest.json"))
    manifest.write_text(manifest.read_text().replace('"step": 4', '"step": 5'))
    ended = local.run()
    assert ended.exit_code == 0 and local.attempts("sft") == ["attempt-1", "attempt-2"]
    assert str(manifest) in ended.status.message and manifest.exists()


def test_what_a_killed_stage_never_finished_is_deleted(local):
    local.write(make_run().stage("sft"), sft__1={"fail_at": 2}).run()
    half = local.run_dir / "checkpoints/sft/attempt-1/step-000003"
    half.mkdir()
    (half / "weights").write_text("half")
    assert local.run().exit_code == 0 and not half.exists()


def test_a_folder_of_another_run_is_refused(local):
    local.write(make_run().stage("sft")).run()
    with pytest.raises(RunFolderError, match="belongs to run 'demo', and this one is 'other'"):
        local.write(make_run("other").stage("sft")).run()


def test_a_folder_that_cannot_be_written_is_refused_with_a_sentence(local):
    local.write(make_run().stage("sft"))
    (local.folder / "runs").write_text("a file where the folder should be")
    with pytest.raises(RunFolderError, match="cannot write"):
        local.run()


def test_a_full_disk_ends_the_run_with_a_sentence_and_the_next_one_goes_on(local, monkeypatch):
    local.write(make_run().stage("sft"), sft={"steps": 20, "seconds": 0.05})
    from prism_operator.local import files

    real, calls = files.write_atomically, []

    def full(path, text):
        calls.append(path)
        if path.name == "status.json" and len(local.steps("sft", 1)) > 2:
            raise RunFolderError(files.unwritable(path, OSError(28, "No space left on device")))
        real(path, text)

    monkeypatch.setattr("prism_operator.local.world.write_atomically", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        local.run()
    assert not local.processes(), "the stage was stopped"
    monkeypatch.undo()
    assert local.run().exit_code == 0
    assert local.steps("sft", 1) + local.steps("sft", 2) == list(range(1, 20))


def test_a_skipped_stage_takes_another_runs_checkpoint(local):
    local.write(make_run().stage("sft")).run()
    digest = local.manifests()["sft"][0]["digest"]
    second = (
        make_run(storage={"local": {"path": "runs/second"}}).stage("sft", checkpoint={"uri": "runs/demo/checkpoints/sft"}).stage("rlvr")
    )
    ended = local.write(second).run()
    assert ended.exit_code == 0
    assert [stage.state for stage in ended.status.stages] == ["Skipped", "Succeeded"]
    manifest = json.loads(next((local.folder / "runs/second").glob("checkpoints/rlvr/*/*/manifest.json")).read_text())
    assert manifest["parents"] == [{"stage": "sft", "digest": digest}]


def test_the_environment_reaches_the_stage(local):
    run = make_run(env=[{"name": "A", "value": "1"}]).stage("sft", env=[{"name": "B", "value": "2"}])
    runner = local.write(run, sft={"steps": 1000}).start()
    pid = local.process("sft")["pid"]
    environ = wait_for(lambda: psutil.Process(pid).environ())
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=20)
    assert (environ["A"], environ["B"], environ["PRISM_PARENT_PID"]) == ("1", "2", str(runner.pid))


@pytest.mark.parametrize("seconds", [0.6, 0.95])
def test_kills_of_runner_and_stage_at_any_moment_lose_and_repeat_nothing(local, seconds):
    local.write(two(), every={"steps": 6, "seconds": 0.05})
    for victim in ("runner", "stage", "runner"):
        runner = local.start()
        time.sleep(seconds)
        if victim == "runner":
            runner.kill()
        else:
            for pid in local.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if pid != runner.pid else 0)
        runner.communicate(timeout=30)
    assert local.run().exit_code == 0
    manifests = local.manifests()
    assert {stage: len(found) for stage, found in manifests.items()} == {"sft": 1, "rlvr": 1}
    assert manifests["rlvr"][0]["parents"][0]["digest"] == manifests["sft"][0]["digest"]


def test_each_stage_runs_in_the_python_that_has_its_library(local):
    """Engine local in one, engine verl in another; what it is given is the module and the job."""
    run = make_run(resources={"gpusPerNode": 1}).stage("sft").stage("rlvr", engine="verl").stage("evaluation", engine="verl")
    local.write(run)

    def interpreter(environment):
        script = local.folder / environment
        stand_in = f"{sys.executable} {STAND_IN} {local.folder / 'behaviour.json'}"
        script.write_text(f'#!/bin/sh\necho "{environment} $1 $2" >> {local.folder}/started\nexec {stand_in} "$3"\n')
        script.chmod(0o755)
        return Interpreter(str(script))

    machine = Machine(cwd=local.folder, num_gpus=lambda: 1, interpreter=interpreter)
    validated = validate_file(local.folder / "run.yaml", machine)
    assert validated.lines() == []
    ended = run_locally(validated.raw, validated.text, local.run_dir, machine)
    assert ended.exit_code == 0
    assert (local.folder / "started").read_text().splitlines() == [f"{name} -m prism_trainer" for name in ("cpu", "rl", "eval")]
    job = json.loads((local.run_dir / "stages/rlvr/attempt-1/job.json").read_text())
    assert (job["engine"], job["nodes"], job["gpusPerNode"]) == ("verl", 1, 1)
