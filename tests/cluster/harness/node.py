"""The real node: control plane, containerd, kubelet, pod network, DNS, KubeRay's operator and an S3 server, in namespaces of their own."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from functools import cached_property
from pathlib import Path

from cluster.harness import namespaces, node_files
from cluster.harness.build import NODE, build, program
from cluster.harness.certificates import Identity, make_identity
from cluster.harness.commands import run, wait_until
from cluster.harness.control_plane import ControlPlane
from cluster.harness.locations import cache_dir, containerd_dir, locked, running_dir
from cluster.harness.namespaces import NODE_ADDRESS
from cluster.harness.packages import install_packages
from cluster.harness.processes import Processes
from cluster.harness.steps import step

S3_ACCESS_KEY = "prism-test"
S3_ENDPOINT = f"http://{NODE_ADDRESS}:7070"


class Node:
    """A node. Everything it knows lies in its folder, so any later process can go on with it or take it down.

    Its addresses are fixed: a second one, of another name, runs in a network namespace of its own.
    """

    def __init__(self, name: str = "node") -> None:
        self.dir = running_dir() / name
        self.store = containerd_dir(name)

    @property
    def processes(self) -> Processes:
        """Its processes, started inside the node's namespaces."""
        init = Processes(self.dir).pid("init")
        if init is None:
            raise RuntimeError("The test cluster does not run: `make cluster` starts it.")
        return Processes(self.dir, namespaces.entrance(init))

    @cached_property
    def control_plane(self) -> ControlPlane:
        settings = json.loads((self.dir / "node.json").read_text())
        return ControlPlane(self.dir, self.processes, Identity(self.dir / "pki"), NODE_ADDRESS, fsync=settings["fsync"])

    def is_running(self) -> bool:
        return (self.dir / "ready").exists() and Processes(self.dir).pid("init") is not None

    def is_kept(self) -> bool:
        """Started by hand to stay; a test run uses it and leaves it."""
        return self.is_running() and (self.dir / "kept").exists()

    def inside(self, *argv: str | Path, input: bytes | None = None, check: bool = True) -> str:
        """Output of a command run in the node's namespaces."""
        return run([*self.processes.entrance, *argv], input=input, check=check)

    def ctr(self, *arguments: str, input: bytes | None = None, check: bool = True) -> str:
        return self.inside("ctr", "--namespace=k8s.io", *arguments, input=input, check=check)

    @cached_property
    def s3_secret_key(self) -> str:
        return (self.dir / "s3.secret").read_text()

    def up(self, *, keep: bool = False, fsync: bool = False) -> None:
        """Builds what is missing, takes down what an earlier run left, and starts; on any failure nothing stays."""
        with step("packages"):
            install_packages()
        build(NODE)
        with locked(self.dir.name):
            self.down()
            try:
                self._start(fsync)
            except BaseException:
                self._save_logs()
                self.down()
                raise
            (self.dir / "ready").touch()
            if keep:
                (self.dir / "kept").touch()

    def down(self) -> None:
        """Ends everything and removes every trace but the cache. Nothing happens where nothing runs."""
        if self.dir.exists():
            with step("down"):
                namespaces.destroy(self.dir)
                shutil.rmtree(self.dir)
        self.__dict__.pop("control_plane", None)
        self.__dict__.pop("s3_secret_key", None)

    def _start(self, fsync: bool) -> None:
        with step("namespaces"):
            namespaces.make(self.dir)
            (self.dir / "node.json").write_text(json.dumps({"fsync": fsync}))
        with step("control plane"):
            make_identity(self.dir / "pki", [NODE_ADDRESS, "10.96.0.1", "127.0.0.1"])
            self.control_plane.start_api(kubelet=True, service_accounts=True)
            self.control_plane.start_controllers()
        with step("container runtime"):
            self._start_containerd()
        with step("node"):
            self._start_node()
            wait_until(self._is_ready, "The node is ready", seconds=90)
        with step("KubeRay and S3"):
            self.control_plane.start_kuberay()
            self._start_s3()

    def _start_containerd(self) -> None:
        config = node_files.write(self.dir / "containerd.toml", node_files.containerd(self.dir, self.store))
        node_files.write(self.dir / "cni" / "10-prism.conflist", node_files.pod_network(self.dir))
        # What the CRI plugin remembers of an earlier node's pods: they are gone, their images stay.
        shutil.rmtree(self.store / "io.containerd.grpc.v1.cri", ignore_errors=True)
        self.processes.start("containerd", ["containerd", "--config", config])
        self._wait_for_containerd()
        if old := self.ctr("containers", "list", "--quiet").split():
            self.ctr("containers", "delete", *old)
            self.processes.restart("containerd")
            self._wait_for_containerd()
        if node_files.PAUSE_IMAGE not in self.ctr("images", "list", "--quiet").split():
            self.ctr("images", "import", "-", input=node_files.pause_archive(program("pause")))

    def _wait_for_containerd(self) -> None:
        def answers() -> bool:
            self.processes.require("containerd")
            return "Revision" in self.inside("ctr", "version", check=False).partition("Server:")[2]

        wait_until(answers, "containerd answers", seconds=30)

    def _start_node(self) -> None:
        control = self.control_plane
        kubelet = node_files.write(self.dir / "kubelet.json", node_files.kubelet(self.dir, control.identity))
        proxy = node_files.write(self.dir / "proxy.json", node_files.proxy(control.kubeconfig("proxy")))
        corefile = node_files.write(self.dir / "Corefile", node_files.corefile(control.kubeconfig("dns")))
        identity = [f"--kubeconfig={control.kubeconfig('kubelet')}", "--hostname-override=vm", f"--node-ip={NODE_ADDRESS}"]
        self.processes.start("kubelet", [program("kubelet"), f"--config={kubelet}", f"--root-dir={self.dir / 'kubelet'}", *identity])
        self.processes.start("kube-proxy", [program("kube-proxy"), f"--config={proxy}"])
        self.processes.start("coredns", [program("coredns"), "-conf", corefile])

    def _is_ready(self) -> bool:
        for name in ("kubelet", "kube-proxy", "coredns", "containerd"):
            self.processes.require(name)
        path = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
        return self.control_plane.kubectl("get", "nodes", "-o", f"jsonpath={path}") == "True"

    def _start_s3(self) -> None:
        secret = secrets.token_hex(16)
        (self.dir / "s3.secret").touch(mode=0o600)
        (self.dir / "s3.secret").write_text(secret)
        (self.dir / "s3").mkdir()
        env = {"ROOT_ACCESS_KEY_ID": S3_ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": secret}
        address = S3_ENDPOINT.removeprefix("http://")
        self.processes.start("s3", [program("versitygw"), "--quiet", "--port", address, "posix", self.dir / "s3"], env)

    def _save_logs(self) -> None:
        """A start that failed removes its folder; why it failed is worth keeping."""
        if (self.dir / "logs").exists():
            kept = cache_dir() / "logs-of-failed-start"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.dir / "logs", kept)
            print(f"cluster: logs of the failed start: {kept}", file=sys.stderr)
