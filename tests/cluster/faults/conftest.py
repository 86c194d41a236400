"""Tests of this folder are coroutines and run side by side: most of their time they wait for controllers, back-offs and deadlines.

All selected ones are started with the first, a few at once, in their order; each test then waits for its own end.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import io
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.faults.api import Api, Object, place
from cluster.faults.scene import Plane
from cluster.harness.control_plane import ControlPlane
from helm_chart import render

CRD = Path(__file__).parents[3] / "crds/prismruns.prism.dev.yaml"
AT_ONCE = 5
NODE = "faults"
LEASE_SECONDS = 10


@pytest.fixture(scope="session")
def plane(api_only: Any, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """API server, etcd, controllers, scheduler and KubeRay, all real; one node, which nobody runs."""
    if not isinstance(api_only, ControlPlane):
        pytest.skip("These tests play the kubelet and stop components: they need a cluster of their own, without PRISM_TEST_KUBECONFIG.")
    api_only.start_kuberay(0, 0)
    api_only.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRD)
    api_only.kubectl("wait", "--for=condition=Established", "crd/prismruns.prism.dev")
    rights = [each for each in render({"watchNamespaces": ["NAMESPACE"]}) if each["kind"] in ("Role", "RoleBinding")]
    rights = [each for each in rights if each["metadata"]["namespace"] == "NAMESPACE" and each["metadata"]["name"] == "prism-prism"]
    stopped = loop.start(_serve(api_only, loop))
    api = loop.run(loop.promise)
    yield Plane(api_only, api, rights, tmp_path_factory.mktemp("operators"))
    loop.cancel(stopped)
    api_only.kubectl("delete", "node", NODE)
    api_only.processes.stop("kuberay-operator")
