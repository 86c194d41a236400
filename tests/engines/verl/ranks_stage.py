"""A stage on Ray whose ranks do nothing, to be killed. With `config.save_every` 1 it asks them for an answer, with 2 it never does."""

import os
import time
from pathlib import Path

import ray


@ray.remote(num_gpus=1, num_cpus=0)
class IdleRank:
    def pid(self):
        return os.getpid()

    def work(self):
        time.sleep(3600)


def run(job, config, reporter):
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    ranks = [IdleRank.remote() for _ in range(job.gpus_per_node)]
    pids = ray.get([rank.pid.remote() for rank in ranks])
    file = Path(job.report_dir) / "ranks.txt"
    file.with_suffix(".partial").write_text(" ".join(map(str, pids)))
    file.with_suffix(".partial").replace(file)
    reporter.phase("training")
    asked = [rank.work.remote() for rank in ranks]
    if config.save_every == 1:
        ray.get(asked)
    time.sleep(3600)
