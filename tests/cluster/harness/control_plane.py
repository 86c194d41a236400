"""etcd, API server, controller manager and scheduler: the same for a real node and for the light mode, but for their addresses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cluster.harness.build import kuberay_crds, program
from cluster.harness.certificates import Identity, write_kubeconfig
from cluster.harness.commands import CommandFailed, run, wait_until
from cluster.harness.processes import Processes

SERVICE_CIDR = "10.96.0.0/16"
POD_CIDR = "10.244.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True)
class ControlPlane:
    """Where the control plane listens, and its files: `dir` is the running cluster's folder."""

    dir: Path
    processes: Processes
    identity: Identity
    host: str
    api_port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    fsync: bool = False
    """Without it etcd is faster and loses data when the machine dies, which tests do not mind; benchmarks do."""

    @property
    def server(self) -> str:
        return f"https://{self.host}:{self.api_port}"

    def kubeconfig(self, user: str = "admin") -> Path:
        file = self.dir / f"{user}.kubeconfig"
        return file if file.exists() else write_kubeconfig(self.identity, self.server, user, file)

    def kubectl(self, *arguments: str | Path, timeout: float = 60) -> str:
        return run([program("kubectl"), *arguments], env={"KUBECONFIG": str(self.kubeconfig())}, timeout=timeout)

    def start_api(self, *, kubelet: bool, service_accounts: bool) -> None:
        """etcd and API server; returns when the API server calls itself ready."""
        self.processes.start("etcd", self._etcd())
        self.processes.start("kube-apiserver", self._api_server(kubelet, service_accounts))
        self.wait_for_api()

    def wait_for_api(self, seconds: float = 90) -> None:
        wait_until(self.is_ready, f"The API server at {self.server} is ready", seconds=seconds)

    def is_ready(self) -> bool:
        for name in ("etcd", "kube-apiserver"):
            self.processes.require(name)
        try:
            return self.kubectl("get", "--raw", "/readyz", timeout=10) == "ok"
        except CommandFailed:
            return False

    def start_controllers(self) -> None:
        """Garbage collection, namespaces, service accounts, quotas; and placing pods."""
        key = self.identity.service_account_key
        common = ["--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0"]
        self.processes.start(
            "kube-controller-manager",
            [
                program("kube-controller-manager"),
                f"--kubeconfig={self.kubeconfig('controller-manager')}",
                f"--service-account-private-key-file={key}",
                f"--root-ca-file={self.identity.authority}",
                "--use-service-account-credentials",
                "--allocate-node-cidrs",
                f"--cluster-cidr={POD_CIDR}",
                *common,
            ],
        )
        self.processes.start("kube-scheduler", [program("kube-scheduler"), f"--kubeconfig={self.kubeconfig('scheduler')}", *common])

    def start_kuberay(self, metrics_port: int = 8080, health_port: int = 8082) -> None:
        """KubeRay's definitions, applied by the server (they are too long for an annotation), and its operator as a process."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", kuberay_crds(), timeout=120)
        wait_until(self._serves_ray, "The API server serves rayclusters and rayjobs", seconds=60)
        self.processes.start(
            "kuberay-operator",
            [
                program("ray-operator"),
                f"-kubeconfig={self.kubeconfig('kuberay')}",
                "-enable-leader-election=false",
                f"-metrics-addr={self.host}:{metrics_port}",
                f"-health-probe-bind-address={self.host}:{health_port}",
            ],
        )

    def _serves_ray(self) -> bool:
        # Not `kubectl wait`: it gives up on an object that has no conditions yet.
        try:
            served = json.loads(self.kubectl("get", "--raw", "/apis/ray.io/v1"))["resources"]
        except CommandFailed:
            return False
        return {"rayclusters", "rayjobs"} <= {resource["name"] for resource in served}

    def _etcd(self) -> list[str | Path]:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer_port}"
        clients = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        peers = [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
        return [program("etcd"), f"--data-dir={self.dir / 'etcd'}", *clients, *peers, *([] if self.fsync else ["--unsafe-no-fsync"])]

    def _api_server(self, kubelet: bool, service_accounts: bool) -> list[str | Path]:
        identity = self.identity
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self.etcd_port}",
            "bind-address": self.host,
            "advertise-address": self.host,
            "secure-port": self.api_port,
            "tls-cert-file": identity.certificate("server"),
            "tls-private-key-file": identity.key("server"),
            "client-ca-file": identity.authority,
            "token-auth-file": identity.tokens,
            "authorization-mode": "Node,RBAC",
            "service-cluster-ip-range": SERVICE_CIDR,
            "service-account-issuer": ISSUER,
            "service-account-key-file": identity.service_account_key,
            "service-account-signing-key-file": identity.service_account_key,
        }
        if kubelet:
            flags |= {
                "kubelet-client-certificate": identity.certificate("api-to-kubelet"),
                "kubelet-client-key": identity.key("api-to-kubelet"),
                "kubelet-certificate-authority": identity.authority,
                "kubelet-preferred-address-types": "InternalIP",
            }
        if not service_accounts:
            # Without a controller manager nobody makes the account that this plugin waits for, and no pod could be created.
            flags["disable-admission-plugins"] = "ServiceAccount"
        return [program("kube-apiserver"), *(f"--{name}={value}" for name, value in flags.items())]
