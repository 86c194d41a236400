"""The container's line on a real Ray: the gang with its GPUs, the look at the machines, and a worker that dies under the trainer."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from pod_runs import PodRun
from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.contract.preflight import PreflightReport
from prism_trainer.environment import PINS
from prism_trainer.errors import GangError
from prism_trainer.pod.board import Board
from prism_trainer.pod.gang import wait_for_gang
from prism_trainer.pod.places import Places
from prism_trainer.pod.stop import Stop

pytestmark = pytest.mark.long

TRAINER = (
    sys.executable,
    "-c",
    "import sys; from prism_trainer import carriers; carriers.VERL['rlvr'] = 'ranks_stage'; "
    "from prism_trainer.__main__ import main; sys.exit(main(sys.argv[1:]))",
)
REAL = Places()
ASKS, WAITS = 1, 2


@pytest.fixture
def pod(tmp_path):
    return PodRun(tmp_path)


def run(pod, address, save_every=ASKS, **places):
    job = pod.job(engine="verl", config=RlvrConfig(save_every=save_every), nodes=1, gpus_per_node=2)
    given = {"ray_address": address, "ray_nodes": REAL.ray_nodes, "ray_watch": REAL.ray_watch, "trainer": TRAINER, "on_cpu": True}
    return pod.run(pod.write(job), **{**given, **places})


def kill_one_rank(pod, killed):
    """As soon as there are some: the kernel would do no more."""
    file = pod.path("stages/sft/attempt-1") / "ranks.txt"
    end = time.monotonic() + 240
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(int(file.read_text().split()[1]), signal.SIGKILL)
    killed.append(time.monotonic())


@pytest.mark.parametrize(
    ("save_every", "sentence"),
    [
        (ASKS, "a Ray worker (IdleRank"),
        (WAITS, "the trainer still waited for it and was killed"),
    ],
)
def test_item_19_a_killed_rank_ends_the_attempt_with_a_sentence_whether_the_trainer_asks_or_waits(pod, ray_address, save_every, sentence):
    killed = []
    killer = threading.Thread(target=kill_one_rank, args=(pod, killed))
    killer.start()
    code, result = run(pod, ray_address, save_every, lost_worker_seconds=5.0)
    ended = time.monotonic()
    killer.join()
    print(f"ended {ended - killed[0]:.1f} s after the kill: {result.message}")
    assert (code, result.outcome, result.failure_class) == (69, "Failed", "NodeLost")
    assert "is gone" in result.message and sentence in result.message


def test_item_19_the_gang_is_whole_when_ray_counts_its_gpus(tmp_path, ray_address):
    places = Places(work_dir=tmp_path, ray_address=ray_address)
    wait_for_gang(1, 2, 120, places, Stop(), Board("rlvr", 1))
    with pytest.raises(GangError, match=r"1 of 1 Ray nodes .* with 2 of 4 GPUs came .* look at the GPUs of the nodes that have too few"):
        wait_for_gang(1, 4, 30, places, Stop(), Board("rlvr", 1))


def test_the_preflight_finds_this_machine_sound_and_writes_what_it_measured(pod, ray_address):
    ended = (sys.executable, "-c", "import sys; sys.exit(3)")
    run(pod, ray_address, preflight=REAL.preflight, trainer=ended, ray_watch=None)
    folder = pod.path("stages/sft/attempt-1")
    report = PreflightReport.model_validate_json((folder / "preflight.json").read_bytes())
    log = (folder / "log.txt").read_text()
    assert report.failures == (), log
    (node,), (summed,) = report.nodes, report.all_reduce
    assert node.versions == PINS["rl"] and node.cpus == 16
    assert (summed.backend, summed.ranks, summed.problem) == ("gloo", 2, "") and summed.bus_gb_per_s > 0
    assert any("sums went by gloo in place of NCCL" in sentence for sentence in report.skipped)
    assert "preflight: gloo over 2 ranks" in log and not (pod.path("checkpoints/sft/attempt-1") / ".preflight").exists()
    print(json.dumps({"seconds": report.seconds, "gloo GB/s": summed.bus_gb_per_s}))
