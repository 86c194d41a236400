"""Processes that are started together and end together."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prism_trainer.contract.report import FailureClass
from prism_trainer.engines.ranks.agent import Ended
from prism_trainer.engines.ranks.launch import _failure, plain_processes, run_ranks
from prism_trainer.engines.ranks.messages import Listener, Teller
from prism_trainer.engines.ranks.process import Verdict
from prism_trainer.engines.ranks.shares import Shares, divide_batch
from prism_trainer.errors import PrismError, Stopped

ROLES = """
import os, time
from pathlib import Path
from prism_trainer.errors import DataError

def main(folder):
    rank = int(os.environ["RANK"])
    (folder / f"{rank}.pid").write_text(str(os.getpid()))
    role = (folder / f"{rank}.role").read_text()
    if role == "fail":
        raise DataError("row 7 is broken; correct it")
    if role == "crash":
        raise ValueError("of an unforeseen kind")
    if role == "out of memory":
        raise MemoryError
    if role == "die":
        os.kill(os.getpid(), 9)
    if role == "wait":
        time.sleep(600)
    (folder / f"{rank}.world").write_text(os.environ["WORLD_SIZE"])
"""


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    """Run ranks by their roles; the folder they share."""
    (tmp_path / "roles.py").write_text(ROLES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def run(*roles: str, watch=lambda: None) -> Path:
        for rank, role in enumerate(roles):
            (tmp_path / f"{rank}.role").write_text(role)
        run_ranks("roles", tmp_path, plain_processes(len(roles)), watch)
        return tmp_path

    return run


def is_alive(folder: Path, rank: int) -> bool:
    try:
        os.kill(int((folder / f"{rank}.pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_every_rank_knows_how_many_they_are(ranks):
    folder = ranks("work", "work")
    assert [(folder / f"{rank}.world").read_text() for rank in range(2)] == ["2", "2"]


@pytest.mark.parametrize(
    ("role", "failure_class", "sentence"),
    [
        ("fail", FailureClass.USER_ERROR, r"row 7 is broken; correct it \(rank 1 of 2\)"),
        ("crash", FailureClass.USER_ERROR, r"ValueError: of an unforeseen kind \(rank 1 of 2\) \(the traceback is in the attempt's log\)"),
        ("out of memory", FailureClass.OUT_OF_MEMORY, r"out of memory \(rank 1 of 2\); lower config.microBatchSize"),
        ("die", FailureClass.NODE_LOST, r"a training process \(rank 1 of 2\) ended by signal 9 and left no word"),
    ],
)
def test_one_that_fails_ends_the_others_with_its_own_sentence(ranks, tmp_path, role, failure_class, sentence):
    with pytest.raises(PrismError, match=sentence) as failed:
        ranks("wait", role)
    assert failed.value.failure_class == failure_class
    assert not is_alive(tmp_path, 0)


def test_what_the_driver_raises_ends_all(ranks, tmp_path):
    def watch():
        if all((tmp_path / f"{rank}.pid").is_file() for rank in range(2)):
            raise Stopped(None)
        time.sleep(0.05)

    with pytest.raises(Stopped):
        ranks("wait", "wait", watch=watch)
    assert not is_alive(tmp_path, 0) and not is_alive(tmp_path, 1)


def test_the_cause_is_told_and_not_what_it_left_behind():
    """Rank 0's connection broke when rank 1 was gone; it was just quicker to say so."""
    broken = Verdict(at=1.0, message="RuntimeError: connection closed by peer")
    cause = Verdict(at=2.0, message="row 7 is broken", failure_class=FailureClass.USER_ERROR)
    ended = [Ended(0, 1, broken.model_dump_json()), Ended(1, 1, cause.model_dump_json())]
    assert str(_failure(ended, 2)) == "row 7 is broken (rank 1 of 2)"


def test_a_rank_that_found_no_memory_is_the_cause_and_not_the_one_that_nccl_aborted_then():
    full = Verdict(at=1.0, message="OutOfMemoryError: CUDA out of memory", out_of_memory=True)
    failed = _failure([Ended(0, 1, full.model_dump_json()), Ended(1, -6, "")], 2)
    assert str(failed).startswith("out of memory (rank 0 of 2)") and failed.failure_class is FailureClass.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("batch", "micro", "world", "shares"),
    [(16, 2, 8, Shares(2, 1)), (16, 2, 1, Shares(2, 8)), (16, 4, 8, Shares(2, 1)), (12, 4, 2, Shares(3, 2)), (8, 8, 8, Shares(1, 1))],
)
def test_a_step_is_divided_equally(batch, micro, world, shares):
    assert divide_batch(batch, micro, world) == shares
    assert shares.micro * shares.accumulation * world == batch


def test_messages_come_whole_and_once(tmp_path):
    teller, listener = Teller(tmp_path), Listener(tmp_path)
    assert listener.heard() == []
    teller.tell("step", step=1)
    with (tmp_path / "told.jsonl").open("a") as file:
        file.write('{"what": "st')
    assert listener.heard() == [{"what": "step", "step": 1}]
    with (tmp_path / "told.jsonl").open("a") as file:
        file.write('ep", "step": 2}\n')
    assert listener.heard() == [{"what": "step", "step": 2}]
    listener.ask_to_stop()
    assert teller.stop_requested
