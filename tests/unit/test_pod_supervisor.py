"""The stage container from its job file to its last words, with a stand-in for the trainer."""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from local_runs import wait_for
from pod_runs import OTHER_DIGEST, PodRun, ask_to_stop, commit
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.report import RESULT_LIMIT_BYTES, FailureClass
from prism_trainer.pod.__main__ import main
from prism_trainer.pod.stop import Stop


@pytest.fixture
def pod(tmp_path):
    return PodRun(tmp_path)


def test_a_stage_runs_and_its_last_words_name_the_final_checkpoint(pod):
    code, result = pod.run(pod.write(behaviour={"steps": 3}))
    assert (code, result.outcome, result.checkpoint.step) == (0, "Succeeded", 3)
    assert result.checkpoint.uri == f"{pod.root}/checkpoints/sft/attempt-1/step-000003-final"
    assert (result.metrics, result.versions, result.resume_from) == ({"loss": 0.1}, {"torch": "2.11.0"}, None)
    assert json.loads((pod.folder / "work/results/sft.json").read_text()) == json.loads((pod.folder / "termination-sft").read_text())


def test_the_trainers_output_is_in_the_log_of_the_container_and_of_the_attempt(pod, capfdbinary):
    pod.run(pod.write())
    said = b"stage sft attempt 1 from step 0"
    assert said in capfdbinary.readouterr().out
    assert said in pod.path("stages/sft/attempt-1/log.txt").read_bytes()


def test_when_done_resumable_checkpoints_and_unfinished_folders_are_gone(pod):
    commit(pod.path("checkpoints/sft/attempt-1/step-000001"))
    pod.path("checkpoints/sft/attempt-1/step-000002/policy").mkdir(parents=True)
    commit(pod.path("checkpoints/sft/attempt-1/step-000003"), config_digest=OTHER_DIGEST, step=3)
    commit(pod.path("checkpoints/sft/attempt-4/step-000001"))
    pod.run(pod.write(pod.job(attempt=3), {"steps": 3}))
    left = {str(path.parent.relative_to(pod.path("checkpoints/sft"))) for path in pod.path("checkpoints").rglob("manifest.json")}
    assert left == {"attempt-1/step-000003", "attempt-3/step-000003-final", "attempt-4/step-000001"}
    assert not pod.path("checkpoints/sft/attempt-1/step-000002").exists()


def test_as_many_resumable_checkpoints_are_kept_as_asked_for(pod):
    pod.run(pod.write(pod.job(keep_intermediate=9), {"steps": 4}, keep_intermediate_when_done=2))
    assert sorted(p.name for p in pod.path("checkpoints/sft/attempt-1").iterdir()) == ["step-000002", "step-000003", "step-000004-final"]


@pytest.mark.parametrize(
    ("behaviour", "failure_class", "code", "sentence"),
    [
        ({"fail_at": 2}, "UserError", 1, "data row 7 has no image"),
        ({"fail_at": 2, "class": "CheckpointCorrupt"}, "CheckpointCorrupt", 65, "data row 7"),
        ({"die_at": 2}, "NodeLost", 69, "the trainer was killed by SIGKILL; last words: stage sft attempt 1 from step 0"),
        ({"exit_at": 2}, "UserError", 1, "ended with exit code 1 and no result; last words: RuntimeError: the stand-in was told to exit"),
        ({"exit_at": 2, "code": 71}, "OutOfMemory", 71, "ended with exit code 71 and no result"),
        ({"exit_at": 2, "code": 2}, "ControlPlane", 74, "could not read its job file"),
    ],
    ids=str,
)
def test_a_failure_has_a_class_a_sentence_an_exit_code_and_the_last_checkpoint(pod, behaviour, failure_class, code, sentence):
    found, result = pod.run(pod.write(behaviour=behaviour))
    assert (found, result.outcome, result.failure_class) == (code, "Failed", failure_class)
    assert sentence in result.message
    assert result.checkpoint.step == 2 and result.checkpoint.uri.endswith("attempt-1/step-000002")


def test_a_failed_trainer_is_started_again_and_goes_on_from_its_checkpoint(pod):
    code, result = pod.run(pod.write(behaviour={"die_at": 2}, restarts={"NodeLost": 1}))
    assert (code, [restart.failure_class for restart in result.restarts]) == (0, ["NodeLost"])
    assert pod.steps() == [1, 2, 3]
    assert result.resume_from == f"{pod.root}/checkpoints/sft/attempt-1/step-000002"


def test_the_budget_is_by_class_and_ends(pod):
    again = f"import os; open({str(pod.folder / 'starts')!r},'a').write('x'); os.kill(os.getpid(),9)"
    command = (sys.executable, "-c", again)
    code, result = pod.run(pod.write(restarts={"NodeLost": 3, "Hang": 5}), trainer=command)
    assert (code, result.failure_class, len(result.restarts)) == (69, FailureClass.NODE_LOST, 3)
    assert (pod.folder / "starts").read_text() == "xxxx"


def test_a_trainer_that_died_after_its_final_checkpoint_has_succeeded(pod):
    code, result = pod.run(pod.write(behaviour={"die_after_final": True}))
    assert (code, result.outcome, result.checkpoint.step) == (0, "Succeeded", 4)


def test_success_without_a_final_checkpoint_is_none(pod):
    (pod.folder / "word.json").write_text('{"stage":"sft","attempt":1,"outcome":"Succeeded"}')
    says = f"import json,shutil,sys; j=json.load(open(sys.argv[1])); shutil.copy('{pod.folder}/word.json',j['reportDir']+'/result.json')"
    code, result = pod.run(pod.write(), trainer=(sys.executable, "-c", says))
    assert (code, result.failure_class) == (65, FailureClass.CHECKPOINT_CORRUPT)


def test_what_a_trainer_before_left_is_not_taken_for_the_next_ones_word(pod):
    stale = pod.path("stages/sft/attempt-1/result.json")
    stale.parent.mkdir(parents=True)
    stale.write_text('{"stage":"sft","attempt":1,"outcome":"Failed","failureClass":"Hang"}')
    _, result = pod.run(pod.write(behaviour={"die_at": 1}))
    assert result.failure_class == FailureClass.NODE_LOST


def test_a_kill_by_the_kernel_for_memory_is_out_of_memory(pod):
    events = pod.folder / "cgroup/memory.events"
    events.parent.mkdir()
    events.write_text("low 0\noom 3\noom_kill 1\n")
    dies = f"import os; open({str(events)!r},'w').write('oom 4\\noom_kill 2\\n'); os.kill(os.getpid(),9)"
    code, result = pod.run(pod.write(), trainer=(sys.executable, "-c", dies))
    assert (code, result.failure_class) == (71, FailureClass.OUT_OF_MEMORY)
    assert "memory ran out" in result.message


def test_a_hang_is_killed_with_all_its_children_and_started_again(pod):
    behaviour = {"hang_at": 2, "deaf": True, "child": True}
    code, result = pod.run(pod.write(behaviour=behaviour, progress_seconds=3, restarts={"Hang": 1}))
    assert (code, [restart.failure_class for restart in result.restarts]) == (0, ["Hang"])
    assert "no sign of work for 3 s" in result.restarts[0].message
    assert not [p for p in psutil.process_iter() if _mentions(p, pod.folder)]


def _mentions(process, folder):
    try:
        return process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in w for w in process.cmdline())
    except psutil.Error:
        return False


def test_a_slow_trainer_that_beats_does_not_hang(pod):
    code, result = pod.run(pod.write(behaviour={"steps": 5, "seconds": 1.0}, progress_seconds=3))
    assert (code, result.restarts) == (0, ())


def test_a_stop_reaches_the_trainer_which_saves(pod):
    process = pod.start(pod.write(behaviour={"steps": 400, "seconds": 0.05}))
    wait_for(lambda: len(pod.steps()) > 2)
    code, output = ask_to_stop(process)
    result = pod.message()
    assert (code, result.outcome, result.failure_class) == (75, "Stopped", FailureClass.PREEMPTED), output
    assert result.checkpoint.step == pod.steps()[-1]
    assert not [p for p in psutil.process_iter() if _mentions(p, pod.folder)]


def test_a_trainer_that_does_not_stop_is_killed_after_the_grace(pod):
    process = pod.start(pod.write(behaviour={"steps": 4000, "seconds": 0.05, "deaf": True}, stop_grace_seconds=1))
    wait_for(lambda: len(pod.steps()) > 2)
    code, _ = ask_to_stop(process)
    result = pod.message()
    assert (code, result.outcome, result.failure_class) == (75, "Stopped", FailureClass.PREEMPTED)
    assert "had not saved within stopGraceSeconds (1 s) and was killed" in result.message
    assert result.checkpoint.step >= 2


def test_a_stop_that_comes_with_the_last_step_is_a_success(pod):
    stop = Stop()
    stop._event.set()
    code, result = pod.run(pod.write(behaviour={"steps": 1, "deaf": True}), stop)
    assert (code, result.outcome) == (75, "Stopped"), "before training begins there is nothing to finish"
    process = pod.start(pod.write(behaviour={"steps": 40, "seconds": 0.05, "deaf": True}))
    wait_for(lambda: len(pod.steps()) > 2)
    code, _ = ask_to_stop(process)
    assert (code, pod.message().outcome) == (0, "Succeeded")


def test_a_trainer_that_somebody_else_stops_counts_as_preempted_and_can_be_started_again(pod):
    file = pod.write(behaviour={"steps": 60, "seconds": 0.05}, restarts={"Preempted": 1})
    process = pod.start(file)
    wait_for(lambda: len(pod.steps()) > 2)
    os.kill(psutil.Process(process.pid).children()[0].pid, signal.SIGTERM)
    process.communicate(timeout=60)
    result = pod.message()
    assert (process.returncode, [restart.failure_class for restart in result.restarts]) == (0, ["Preempted"])
    assert pod.steps() == sorted(set(pod.steps()))


def test_a_final_checkpoint_that_is_there_already_is_success_without_training(pod):
    commit(pod.path("checkpoints/sft/attempt-1/step-000009"), final=True, step=9)
    code, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (code, result.checkpoint.step, result.attempt, pod.steps(2)) == (0, 9, 2, [])
    assert "attempt 1 committed its final checkpoint" in result.message and result.versions == {"torch": "2.11.0"}


def test_a_final_checkpoint_of_another_configuration_is_not_ours(pod):
    commit(pod.path("checkpoints/sft/attempt-1/step-000009"), final=True, step=9, config_digest=OTHER_DIGEST)
    _, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (result.checkpoint.step, pod.steps(2)) == (4, [1, 2, 3])


def test_a_damaged_final_checkpoint_is_refused_naming_the_file_and_stays(pod):
    ref = commit(pod.path("checkpoints/sft/attempt-1/step-000009"), final=True, step=9)
    file = Path(ref.uri) / "policy/model.safetensors"
    file.write_bytes(b"weightz")
    code, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (code, result.failure_class) == (65, FailureClass.CHECKPOINT_CORRUPT)
    assert str(file) in result.message and "sha256 differs" in result.message
    assert file.exists()


def test_a_new_attempt_goes_on_from_the_newest_checkpoint_and_removes_it_when_it_has_a_newer_one(pod):
    old = commit(pod.path("checkpoints/sft/attempt-1/step-000002"), step=2)
    process = pod.start(pod.write(pod.job(attempt=2), {"steps": 400, "seconds": 0.05}))
    wait_for(lambda: len(pod.steps(2)) > 1)
    wait_for(lambda: not Path(old.uri).exists())
    ask_to_stop(process)
    assert pod.message().resume_from == old.uri and pod.steps(2)[0] == 3


def test_a_damaged_resumable_checkpoint_is_passed_over_for_an_older_one(pod):
    older = commit(pod.path("checkpoints/sft/attempt-1/step-000001"), step=1)
    newer = commit(pod.path("checkpoints/sft/attempt-1/step-000002"), step=2)
    (Path(newer.uri) / "policy/model.safetensors").write_bytes(b"xxx")
    code, result = pod.run(pod.write(pod.job(attempt=2)))
    assert (code, result.resume_from, pod.steps(2)) == (0, older.uri, [2, 3])
    assert f"{newer.uri}/policy/model.safetensors' has 3 bytes, expected 7" in pod.path("stages/sft/attempt-2/log.txt").read_text()


def test_the_attempts_own_damaged_checkpoint_makes_room_for_the_same_step_again(pod):
    """It commits step 2 and dies, the disk damages step 2, so it goes on from step 1 and commits step 2 again."""
    damages = (
        "import os,pathlib,sys; marker=pathlib.Path(sys.argv[1]);"
        "f=pathlib.Path(sys.argv[2])/'checkpoints/sft/attempt-1/step-000002/policy/results.json'\n"
        "if not marker.exists() and f.exists(): marker.touch(); f.write_text('damaged'); os.kill(os.getpid(),9)\n"
        "os.execv(sys.executable,[sys.executable]+sys.argv[3:])\n"
    )
    command = (sys.executable, "-c", damages, str(pod.folder / "marker"), pod.root, *pod.places().trainer[1:])
    file = pod.write(pod.job(keep_intermediate=9), {"die_at": 2}, restarts={"NodeLost": 3})
    code, result = pod.run(file, trainer=command)
    assert (code, len(result.restarts), result.resume_from[-4:]) == (0, 3, "0002")
    assert pod.steps() == [1, 2, 2, 3]


def test_a_bad_job_file_is_a_sentence_in_the_last_words(pod):
    file = pod.folder / "sft.json"
    file.write_text(json.dumps({"job": {"stage": "sft", "attempt": 7}, "colour": "blue"}))
    code, result = pod.run(file)
    assert (code, result.stage, result.attempt, result.failure_class) == (2, "sft", 7, FailureClass.CONTROL_PLANE)
    assert f"job file '{file}' cannot be used: colour: Extra inputs" in result.message
    assert result.message.endswith("more; the operator and the image of the stage must come from the same version of prism")
    file.write_text("{")
    assert pod.run(file)[1].attempt == 1


def test_the_last_words_fit_whatever_was_said(pod):
    word = {"stage": "sft", "attempt": 1, "outcome": "Failed", "failureClass": "UserError", "message": "ä\u0001" * 4000}
    word["metrics"] = {str(number): 1.5 for number in range(500)}
    (pod.folder / "word.json").write_text(json.dumps(word))
    says = f"import json,shutil,sys; j=json.load(open(sys.argv[1])); shutil.copy('{pod.folder}/word.json',j['reportDir']+'/result.json')"
    pod.run(pod.write(restarts={"UserError": 12}), restart_seconds=0.0, trainer=(sys.executable, "-c", says))
    assert len((pod.folder / "termination-sft").read_bytes()) <= RESULT_LIMIT_BYTES
    assert pod.message().message.startswith("ä\u0001ä")


def test_an_unforeseen_error_has_last_words_too(pod):
    code, result = pod.run(pod.write(), trainer=("/nowhere/python",))
    assert (code, result.failure_class) == (1, FailureClass.USER_ERROR)
    assert "FileNotFoundError" in result.message and "unforeseen" in result.message


def test_the_next_stage_in_the_same_pods_waits_and_takes_the_checkpoint_of_the_one_before(pod):
    inputs = {"policy": CheckpointRef(stage="sft", uri="unknown", digest=None)}
    second = pod.write(pod.job(stage="rlvr", inputs=inputs), after="sft")
    process = pod.start(second)
    code, first = pod.run(pod.write(behaviour={"steps": 2}))
    output, _ = process.communicate(timeout=60)
    assert (code, process.returncode) == (0, 0), output
    job = json.loads((pod.folder / "work/jobs/rlvr.json").read_text())
    assert job["inputs"]["policy"] == first.checkpoint.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_the_next_stage_in_the_same_pods_begins_nothing_after_a_failure(pod):
    pod.run(pod.write(behaviour={"fail_at": 1}))
    code, result = pod.run(pod.write(pod.job(stage="rlvr"), after="sft"))
    assert (code, result.outcome, result.failure_class) == (75, "Stopped", FailureClass.PREEMPTED)
    assert "stage 'sft', before this one in the same pods" in result.message and "data row 7" in result.message
    assert pod.steps(stage="rlvr") == []


def test_a_container_that_waits_for_another_stage_can_be_stopped(pod):
    process = pod.start(pod.write(pod.job(stage="rlvr"), after="sft"))
    wait_for(lambda: pod.path("stages/rlvr/attempt-1/log.txt").exists())
    code, _ = ask_to_stop(process)
    assert (code, pod.message("rlvr").outcome) == (75, "Stopped")


def test_what_a_checkpoint_is_made_from_is_pinned_by_the_digest_found_there(pod):
    pinned = commit(pod.folder / "given", stage="elsewhere", step=5)
    pod.run(pod.write(pod.job(inputs={"policy": CheckpointRef(stage="sft", uri=pinned.uri, digest=None)})))
    job = json.loads((pod.folder / "work/jobs/sft.json").read_text())
    assert (job["inputs"]["policy"]["digest"], job["inputs"]["policy"]["step"]) == (pinned.digest, 5)


def test_help_says_how_to_use_it(capsys):
    assert main(["--help"]) == 0
    assert "usage: python -m prism_trainer.pod JOB.json" in capsys.readouterr().out
    assert main([]) == 2
