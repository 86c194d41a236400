"""KubeRay may be installed after PRISM, or never: a PrismRun is told so, and goes on once it is there."""

import asyncio
import json
import os
import signal

import pytest
import yaml

from builders import make_pipeline
from cluster.faults.operator_process import OperatorProcess
from cluster.harness.api_only import api_server
from cluster.harness.build import kuberay_crds
from cluster.harness.commands import wait_until
from cluster.harness.control_plane import ControlPlane
from cluster.test_crd_admission import CRDS, SOUND
from prism_operator.crdgen.definition import FILE_NAME

pytestmark = pytest.mark.cluster


@pytest.fixture
def control(api_only):
    if not isinstance(api_only, ControlPlane):
        pytest.skip("A cluster of PRISM_TEST_KUBECONFIG has KubeRay.")
    with api_server(controllers=False) as control:
        control.kubectl("apply", "-f", CRDS / FILE_NAME)
        wait_until(lambda: "prismruns" in control.kubectl("api-resources", "--api-group=prism.dev"), "prismruns are known", seconds=60)
        yield control


def test_a_run_is_told_that_kuberay_is_missing_and_starts_once_it_is_there(control, tmp_path):
    operator = OperatorProcess("prism-operator", "default", control.kubeconfig(), control.processes)
    asyncio.run(operator.start())
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(make_pipeline(storage=SOUND).raw))
    control.kubectl("apply", "-f", file)

    def ready():
        conditions = json.loads(control.kubectl("get", "prismrun", "demo", "-o", "json")).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == "ClusterReady"), {})

    wait_until(lambda: ready().get("reason") == "StartRefused", "the run says why it does not start", seconds=30)
    assert "KubeRay" in ready()["message"]
    control.kubectl("apply", "--server-side", "-f", kuberay_crds(), timeout=120)
    wait_until(lambda: "demo-sft-a1" in control.kubectl("get", "rayclusters", "-o", "name"), "its first cluster is created", seconds=90)
    os.kill(operator.pid, signal.SIGTERM)
