"""The clusters that tests ask for: the one of PRISM_TEST_KUBECONFIG as it is, else one started here, where the machine can."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.harness import images
from cluster.harness.api_only import api_server
from cluster.harness.cluster import Cluster
from cluster.harness.control_plane import ControlPlane
from cluster.harness.node import Node

GIVEN = "PRISM_TEST_KUBECONFIG"
REPORTED = ("prismruns.prism.dev", "rayclusters.ray.io", "pods")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real node with KubeRay, object storage and the project's images built from the working tree."""
    if given := os.environ.get(GIVEN):
        yield Cluster(Path(given))
        return
    if reason := _cannot_run_a_node():
        pytest.skip(f"{reason} {GIVEN} can name a cluster to use instead.")
    node = Node()
    kept = node.is_kept()
    if not kept:
        atexit.register(node.down)  # also where the session ends before its fixtures do
        node.up()
    try:
        images.provide(node)
        yield Cluster(node.control_plane.kubeconfig(), node)
    finally:
        if not kept:
            node.down()


@pytest.fixture(scope="session")
def api_only() -> Iterator[ControlPlane | Cluster]:
    """An API server with its controllers and no node: for definitions, admission and whatever else is only objects."""
    if given := os.environ.get(GIVEN):
        yield Cluster(Path(given))
        return
    if reason := _cannot_build():
        pytest.skip(f"{reason} {GIVEN} can name a cluster to use instead.")
    with api_server() as control_plane:
        yield control_plane


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that enforces the strictest Pod Security; it is gone afterwards, and what was in it is printed where the test fails."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}})
    failed_before = request.session.testsfailed
    yield name
    if request.session.testsfailed > failed_before:
        _print_story(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--timeout=120s", timeout=150)
    cluster.remove_volumes(name)


def _print_story(cluster: Cluster, namespace: str) -> None:
    """What a person would look at first; printed in the teardown, which pytest shows with the failure."""
    here = f"--namespace={namespace}"
    print(cluster.kubectl("get", "events", here, "--sort-by=.lastTimestamp", check=False))
    for kind in REPORTED:
        print(cluster.kubectl("get", kind, here, "-o", "yaml", check=False))
    for pod in cluster.kubectl("get", "pods", here, "-o", "name", check=False).split():
        print(f"--- {pod}")
        print(cluster.kubectl("logs", here, pod, "--all-containers", "--tail=40", check=False))


def _cannot_build() -> str:
    """Why not, as a sentence; empty where it can."""
    if sys.platform != "linux":
        return "The test cluster runs on Linux."
    missing = [command for command in ("go", "openssl") if shutil.which(command) is None]
    return f"The test cluster is built with {' and '.join(missing)}, which this machine lacks." if missing else ""


def _cannot_run_a_node() -> str:
    if sys.platform == "linux" and os.geteuid() != 0:
        return "The test cluster's node needs root."
    return _cannot_build()
