"""What the node's programs are configured with: containerd, kubelet, kube-proxy, CoreDNS, the pod network and the pause image."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from cluster.harness.certificates import Identity
from cluster.harness.control_plane import POD_CIDR
from cluster.harness.namespaces import NODE_ADDRESS, cgroup_name

PAUSE_IMAGE = "prism.local/pause:1"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def containerd(folder: Path, store: Path) -> str:
    # State and socket lie under /run, which is the node's own. restrict_oom_score_adj: a nested machine may not lower scores.
    return f"""version = 2
root = "{store}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.{'", "io.containerd.snapshotter.v1.'.join(("aufs", "btrfs", "devmapper", "zfs"))}"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder / "cni"}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def pod_network(folder: Path) -> str:
    """Each pod a routed link of its own: no bridge, so service addresses also work between pods of this node without br_netfilter."""
    ranges = [[{"subnet": POD_CIDR.replace("/16", "/24")}]]
    addresses = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(folder / "addresses")}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "prism", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}, ports]})


def kubelet(folder: Path, identity: Identity) -> str:
    # Pods get no other resolver than the cluster's.
    resolver = write(folder / "resolv.conf", f"nameserver {NODE_ADDRESS}\n")
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup_name(folder)}",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(identity.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(identity.certificate("server")),
        "tlsPrivateKeyFile": str(identity.key("server")),
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolver),
        "podLogsDir": str(folder / "pod-logs"),
        "failSwapOn": False,
        # Images are the cache, and a full disk of a shared machine is no reason to evict a test's pods.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }
    return json.dumps(config, indent=1)


def proxy(kubeconfig: Path) -> str:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": "vm",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # Zero: leave the machine's connection tracking as it is.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return json.dumps(config, indent=1)


def corefile(kubeconfig: Path) -> str:
    return f"""cluster.local:53 in-addr.arpa:53 {{
    bind {NODE_ADDRESS}
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
    }}
}}
"""


def pause_archive(binary: Path) -> bytes:
    """An image of one file, as `ctr images import` reads it."""
    layer = _tar({"pause": binary.read_bytes()}, mode=0o755)
    digest = hashlib.sha256(layer).hexdigest()
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    return _tar({"config.json": json.dumps(image).encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}, mode=0o644)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
