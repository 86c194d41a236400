"""Waiting for all Ray nodes. There is no real ray in the development environment: a module of that name in a folder stands for it."""

import os
import socket
import sys
import threading
import time

import psutil
import pytest

from prism_trainer.errors import GangError, Stopped
from prism_trainer.pod.board import Board
from prism_trainer.pod.gang import wait_for_gang
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop

FAKE_RAY = """
import os, time
def init(address, **options):
    if os.environ.get("FAKE_RAY_HANGS"):
        time.sleep(600)
    assert os.environ["RAY_AUTH_TOKEN"] == "right", "token is not accepted"
def nodes():
    # a word a node: dead, alive, or alive with so many GPUs
    words = open(os.environ["FAKE_RAY_NODES"]).read().split()
    gpus = [int(word.partition(":")[2] or 0) for word in words]
    return [
        {"Alive": word != "dead", "NodeManagerAddress": f"10.0.0.{i}", "Resources": {"CPU": 4.0, **({"GPU": float(n)} if n else {})}}
        for i, (word, n) in enumerate(zip(words, gpus), 1)
    ]
"""


@pytest.fixture
def ray(tmp_path, monkeypatch):
    """Gives the file that says which nodes there are; something listens at the head's address."""
    (tmp_path / "ray.py").write_text(FAKE_RAY)
    nodes = tmp_path / "nodes"
    nodes.write_text("alive")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    monkeypatch.setenv("FAKE_RAY_NODES", str(nodes))
    return nodes


@pytest.fixture
def places(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as head:
        yield Places(work_dir=tmp_path, ray_address=f"127.0.0.1:{head.getsockname()[1]}", gang_tick_seconds=0.05)


def test_it_ends_when_all_nodes_are_alive(ray, places):
    ray.write_text("alive dead")
    board = Board("sft", 1)
    late = threading.Timer(1.0, lambda: ray.write_text("alive dead alive"))
    late.start()
    started = time.monotonic()
    wait_for_gang(2, 0, 60, places, Stop(), board)
    assert time.monotonic() - started > 0.9 and board.progress().phase == "waiting for workers"


def test_too_few_nodes_are_a_lost_node_and_the_sentence_says_how_many_came(ray, places):
    with pytest.raises(GangError, match=r"1 of 3 Ray nodes at 127.0.0.1:\d+ came within 5 s; look at the events") as error:
        wait_for_gang(3, 0, 5, places, Stop(), Board("sft", 1))
    assert error.value.failure_class == "NodeLost"


def test_it_waits_for_the_gpus_of_every_node(ray, places):
    ray.write_text("alive:8 alive:7 alive:1")
    late = threading.Timer(1.0, lambda: ray.write_text("alive:8 alive:8 alive:1"))
    late.start()
    started = time.monotonic()
    wait_for_gang(2, 8, 60, places, Stop(), Board("sft", 1))
    assert time.monotonic() - started > 0.9


@pytest.mark.parametrize(
    ("came", "sentence"),
    [
        (
            "alive:8",
            r"1 of 2 Ray nodes at 127.0.0.1:\d+ with 8 of 16 GPUs came \(10.0.0.1 with 8 GPUs, and 8 on each are needed\) within 5 s; "
            "look at the events of the pods",
        ),
        (
            "alive:8 alive:6",
            r"2 of 2 Ray nodes .* with 14 of 16 GPUs came \(10.0.0.1 with 8 GPUs and 10.0.0.2 with 6 GPUs, and 8 on each are needed\) .*; "
            "look at the GPUs of the nodes that have too few",
        ),
    ],
)
def test_missing_gpus_are_told_by_node(ray, places, came, sentence):
    ray.write_text(came)
    with pytest.raises(GangError, match=sentence):
        wait_for_gang(2, 8, 5, places, Stop(), Board("sft", 1))


def test_a_token_that_is_not_accepted_is_told(ray, places, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(GangError, match=r"0 of 2 .* \(AssertionError: token is not accepted\)"):
        wait_for_gang(2, 0, 5, places, Stop(), Board("sft", 1))


def test_a_head_that_does_not_listen_yet_is_asked_again(ray, places):
    places = Places(work_dir=places.work_dir, ray_address="127.0.0.1:1", gang_tick_seconds=0.05)
    with pytest.raises(GangError, match=r"nobody listens at 127\.0\.0\.1:1 yet"):
        wait_for_gang(1, 0, 4, places, Stop(), Board("sft", 1))


def test_a_stop_ends_the_wait_and_the_child_that_counts(ray, places, monkeypatch):
    monkeypatch.setenv("FAKE_RAY_HANGS", "yes")
    stop = Stop()
    threading.Timer(1.0, stop._event.set).start()
    with pytest.raises(Stopped):
        wait_for_gang(2, 0, 60, places, stop, Board("sft", 1))
    assert not [child for child in psutil.Process().children() if places.ray_address in " ".join(child.cmdline())]


def test_without_ray_one_machine_needs_no_gang_and_two_are_refused(places):
    places = Places(work_dir=places.work_dir, ray_nodes=(sys.executable, "-m", "prism_trainer.pod.ray_nodes"))
    wait_for_gang(1, 0, 5, places, Stop(), Board("sft", 1))
    with pytest.raises(GangError, match="needs 2 Ray nodes, and its image has no ray"):
        wait_for_gang(2, 0, 5, places, Stop(), Board("sft", 1))
    with pytest.raises(GangError, match="needs 8 GPUs of Ray, and its image has no ray"):
        wait_for_gang(1, 8, 5, places, Stop(), Board("sft", 1))
