"""Every version of the test cluster, in one place. A changed line here rebuilds exactly what it names."""

from __future__ import annotations

KUBERNETES = "v1.34.4"
KUBERNETES_STAGING = "v0.34.4"
"""k8s.io/api and its 30 siblings, released beside Kubernetes itself."""
ETCD = "v3.6.5"
KUBERAY = "v1.6.2"
HELM = "v3.19.5"
KWOK = "v0.7.0"
COREDNS = "v1.12.4"
VERSITYGW = "v1.8.0"
"""The S3 server."""
PAUSE = "v1"

DEBIAN_SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-venv", "wget")
"""What the official Python images have and a minimal Debian has not; wget for KubeRay's probes."""

HOST_PACKAGES = {
    "buildah": "buildah",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "skopeo": "skopeo",
}
"""Command that must be found, and the Debian package that brings it; the CNI plugins (no command) are checked beside these."""
