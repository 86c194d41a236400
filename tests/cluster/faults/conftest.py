"""The control plane of these tests, all of it real but the kubelet, and how the tests run: coroutines, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cluster.faults.api import Api, Refused, place
from cluster.faults.scene import Plane
from cluster.faults.side_by_side import SideBySide, is_ours
from cluster.harness.commands import wait_until
from cluster.harness.control_plane import ControlPlane
from helm_chart import render

CRD = Path(__file__).parents[3] / "crds/prismruns.prism.dev.yaml"
AT_ONCE = 5
NODE = "faults"
RUNNING = pytest.StashKey[SideBySide]()
LEASE = place("kube-node-lease", "leases", NODE)


@pytest.fixture(scope="session")
def side_by_side(pytestconfig: pytest.Config) -> Iterator[SideBySide]:
    running = pytestconfig.stash[RUNNING] = SideBySide(AT_ONCE)
    yield running
    running.close()


@pytest.fixture(scope="session")
def plane(api_only: Any, side_by_side: SideBySide) -> Iterator[Plane]:
    """API server, etcd, controllers, scheduler and KubeRay, all real; and a node that nobody runs."""
    if not isinstance(api_only, ControlPlane):
        pytest.skip("These tests play the kubelet and stop components: they need a control plane of their own, not PRISM_TEST_KUBECONFIG.")
    api_only.start_kuberay(0, 0)
    api_only.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRD)
    wait_until(lambda: "prismruns" in api_only.kubectl("api-resources", "--api-group=prism.dev"), "prismruns are known", seconds=60)
    rights = [each for each in render({"watchNamespaces": ["there"]}) if each["metadata"].get("namespace") == "there"]
    stack = AsyncExitStack()
    api = side_by_side.start(stack.enter_async_context(Api.open(api_only.kubeconfig()))).result()
    side_by_side.start(_join(api)).result()
    beating = side_by_side.start(_keep_alive(api))
    yield Plane(api_only, api, rights)
    beating.cancel()
    side_by_side.start(stack.aclose()).result()
    api_only.kubectl("delete", "node", NODE)
    api_only.processes.stop("kuberay-operator")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not is_ours(pyfuncitem):
        return None
    side_by_side = pyfuncitem.session.config.stash[RUNNING]
    side_by_side.wait_for(pyfuncitem, pyfuncitem.session.items, pyfuncitem.funcargs)
    return True


async def _join(api: Api) -> None:
    """As a kubelet does, with room for everything."""
    plenty = {"cpu": "1k", "memory": "1Ei", "ephemeral-storage": "1Ei", "pods": "1k", "nvidia.com/gpu": "1k"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": None, "lastTransitionTime": None}
    node = {"metadata": {"name": NODE}, "status": {"allocatable": plenty, "capacity": plenty, "conditions": [ready]}}
    await api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", **node})
    lease = {"metadata": {"name": NODE}, "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": _now()}}
    await api.create(place("kube-node-lease", "leases"), {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease})


async def _keep_alive(api: Api) -> None:
    """Without it the node counts as lost, and its pods are taken away."""
    while True:
        await asyncio.sleep(10)
        with suppress(aiohttp.ClientError, OSError, Refused):
            await api.patch(LEASE, {"spec": {"renewTime": _now()}})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
