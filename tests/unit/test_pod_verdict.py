"""How a dead trainer is judged, and what its container tells about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.preflight import Finding
from prism_trainer.contract.report import EXIT_CODES, RESULT_LIMIT_BYTES, FailureClass, Restart, StageResult
from prism_trainer.pod.last_words import exit_code
from prism_trainer.pod.memory import oom_kills
from prism_trainer.pod.verdict import End, judge

LOST = Finding(failure_class=FailureClass.NODE_LOST, sentence="a worker is gone")


def result(outcome, failure_class=None, message="it broke"):
    return StageResult(stage="sft", attempt=1, outcome=outcome, failure_class=failure_class, message=message)


@pytest.mark.parametrize(
    ("end", "failure_class", "sentence"),
    [
        (End(0, result("Succeeded", message="")), None, ""),
        (End(1, result("Failed", FailureClass.USER_ERROR)), "UserError", "it broke"),
        (End(75, result("Stopped")), "Preempted", "stopped from outside"),
        (End(-9), "NodeLost", "killed by SIGKILL"),
        (
            End(-9, oom_kills=1, last_line="step 3"),
            "OutOfMemory",
            "memory ran out; raise resources.memory or lower the batch; last words: step 3",
        ),
        (End(-11), "NodeLost", "killed by SIGSEGV"),
        (End(-15), "Preempted", "ended by SIGTERM from outside"),
        (End(3), "UserError", "exit code 3 and no result"),
        (End(65), "CheckpointCorrupt", "exit code 65 and no result"),
        (End(2), "ControlPlane", "could not read its job file"),
        (End(-9, hung_for=31.0, last_line="loading"), "Hang", "no sign of work for 31 s and was killed; last words: loading"),
        (End(1, last_words="x\nray.exceptions.ActorDiedError: The actor died"), "NodeLost", "exit code 1 and no result"),
        (End(1, last_words="torch.OutOfMemoryError: CUDA out of memory."), "OutOfMemory", "exit code 1 and no result"),
        (End(1, last_words="ValueError: no such column"), "UserError", "exit code 1 and no result"),
        (End(1, lost_worker=LOST), "NodeLost", "a worker is gone; the trainer ended with exit code 1"),
        (End(-9, lost_worker=LOST, waited_for_lost=True), "NodeLost", "a worker is gone; the trainer still waited for it and was killed"),
        (End(1, result("Failed", FailureClass.USER_ERROR), lost_worker=LOST), "NodeLost", "a worker is gone; the trainer says: it broke"),
        (End(1, result("Failed", FailureClass.OUT_OF_MEMORY), lost_worker=LOST), "OutOfMemory", "it broke"),
        (End(75, result("Stopped"), stop_asked=True, lost_worker=LOST), "Preempted", "stopped on request"),
        (End(75, result("Stopped"), stop_asked=True), "Preempted", "stopped on request"),
        (End(0, result("Succeeded", message=""), stop_asked=True), None, ""),
        (End(1, result("Failed", FailureClass.USER_ERROR), stop_asked=True), "Preempted", "meanwhile the trainer failed: it broke"),
        (End(-15, stop_asked=True), "Preempted", "before anything could be saved"),
        (End(-9, stop_asked=True, killed_after=120), "Preempted", r"stopGraceSeconds \(120 s\) and was killed"),
    ],
)
def test_a_dead_trainer_has_a_class_and_a_sentence(end, failure_class, sentence):
    import re

    verdict = judge(end)
    assert verdict.failure_class == failure_class and re.search(sentence, verdict.message)


def test_every_exit_code_tells_one_class():
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES) and not {0, 2} & set(EXIT_CODES.values())
    assert {exit_code(result("Failed", one)) for one in FailureClass} == {1, 65, 69, 70, 71, 74, 75}
    assert (exit_code(result("Succeeded")), exit_code(result("Stopped"))) == (0, 75)


TEXT = st.text(st.characters(codec="utf-8"), max_size=60).map(lambda text: text * 200)


@given(message=TEXT, words=TEXT, count=st.integers(0, 40), uri=st.text("abc/é", max_size=500), names=st.integers(0, 300))
def test_the_last_words_always_fit_and_keep_what_counts(message, words, count, uri, names):
    ref = CheckpointRef(stage="sft", uri=uri, digest="sha256:" + "0" * 64)
    restarts = tuple(Restart(failure_class=FailureClass.HANG, message=words, at="2026-01-01T00:00:00Z") for _ in range(count))
    values = {f"metric-{number}": number / 7 for number in range(names)}
    full = StageResult(
        stage="sft",
        attempt=1,
        outcome="Failed",
        failure_class=FailureClass.HANG,
        message=message,
        checkpoint=ref,
        resume_from=uri,
        restarts=restarts,
        metrics=values,
        versions=dict.fromkeys(values, "1"),
    )
    text = full.to_message()
    assert len(text.encode()) <= RESULT_LIMIT_BYTES
    told = StageResult.model_validate_json(text)
    assert (told.checkpoint, told.resume_from, told.failure_class) == (ref, uri, FailureClass.HANG)
    assert message.startswith(told.message)


@pytest.mark.parametrize(
    ("file", "text", "count"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("memory.events", "rubbish", 0),
        ("nothing", "", 0),
    ],
)
def test_kills_for_memory_are_counted_with_either_version_of_cgroups(tmp_path, file, text, count):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert oom_kills(tmp_path) == count
