"""The light mode: API server and etcd on loopback, in seconds, without root; on request controllers, KubeRay, and kwok's made-up nodes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster.harness.build import CONTROL_PLANE, build, program
from cluster.harness.certificates import make_identity
from cluster.harness.control_plane import ControlPlane
from cluster.harness.locations import running_dir
from cluster.harness.processes import Processes, start_time
from cluster.harness.steps import step

ADDRESS = "127.0.0.1"


@contextmanager
def api_server(
    *, controllers: bool = True, kuberay: bool = False, kwok: Path | bool = False, fsync: bool = False
) -> Iterator[ControlPlane]:
    """A control plane for the time of the `with`.

    `kuberay` adds its CRDs and its operator; `kwok` plays all nodes (True: with its own stages; a path: with the stages of that file).
    """
    build((*CONTROL_PLANE, *(["kwok"] if kwok else [])))
    running_dir().mkdir(parents=True, exist_ok=True)
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"api-{os.getpid()}-{start_time(os.getpid())}-", dir=running_dir()))
    processes = Processes(folder)
    try:
        with step("API server"):
            control = _start(folder, processes, controllers, fsync)
            if kuberay:
                control.start_kuberay(*_free_ports(2))
            if kwok:
                stages = [f"--config={kwok}"] if isinstance(kwok, Path) else []
                processes.start("kwok", [program("kwok"), f"--kubeconfig={control.kubeconfig('kwok')}", "--manage-all-nodes", *stages])
        yield control
    finally:
        processes.stop_all()
        shutil.rmtree(folder)


def remove_abandoned() -> None:
    """Ends what a killed test process left running."""
    for folder in running_dir().iterdir():
        owner = re.fullmatch(r"api-(\d+)-(\d+)-\w+", folder.name)
        if owner and start_time(int(owner[1])) != owner[2]:
            Processes(folder).stop_all()
            shutil.rmtree(folder)


def _start(folder: Path, processes: Processes, controllers: bool, fsync: bool) -> ControlPlane:
    api, etcd, peer = _free_ports(3)
    identity = make_identity(folder / "pki", [ADDRESS, "10.96.0.1"])
    control = ControlPlane(folder, processes, identity, ADDRESS, api, etcd, peer, fsync)
    control.start_api(kubelet=False, service_accounts=controllers)
    if controllers:
        control.start_controllers()
    return control


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now; all held until all are chosen, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind((ADDRESS, 0))
        return [int(one.getsockname()[1]) for one in sockets]
