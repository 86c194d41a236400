"""A Ray worker that dies while the trainer runs: who waits for it is ended, who starts it again is not. Watch and trainer are stand-ins."""

import sys

import pytest

from pod_runs import PodRun
from prism_trainer.contract.configs import EvaluationConfig, RlvrConfig

ONE_NODE = (sys.executable, "-c", 'print(\'[{"node": "10.0.0.1", "gpus": 1, "cpus": 7}]\')')
FINDING = '{"failureClass": "NodeLost", "sentence": "a Ray worker is gone"}'
TELLS = (sys.executable, "-c", f"import time; print({FINDING!r}, flush=True); time.sleep(60)")


@pytest.mark.parametrize(
    ("config", "outcome"),
    [
        (RlvrConfig(), "Failed"),
        (EvaluationConfig(), "Succeeded"),  # its replicas are started once more
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_dead_worker_ends_the_trainer_unless_it_starts_workers_again_itself(tmp_path, config, outcome):
    pod = PodRun(tmp_path)
    job = pod.job(stage=config.kind, config=config, engine="verl", nodes=1, gpus_per_node=1)
    behaviour = {"steps": 30, "seconds": 0.1}
    _, result = pod.run(pod.write(job, behaviour), ray_nodes=ONE_NODE, ray_watch=TELLS, lost_worker_seconds=0.1)
    assert result.outcome == outcome, result.message
    assert outcome == "Succeeded" or (result.failure_class, "still waited for it" in result.message) == ("NodeLost", True)
