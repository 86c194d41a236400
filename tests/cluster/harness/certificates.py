"""A cluster's identity: one authority, the certificates it signs, tokens, and the kubeconfigs made of them. Needs openssl 3."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from cluster.harness.commands import run

# Subject and group of each token; the API server's own roles (RBAC) bind to these names.
USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "kubelet": ("system:node:vm", "system:nodes"),
    "kuberay": ("kuberay-operator", "system:masters"),
    "dns": ("coredns", "system:masters"),
    "kwok": ("kwok", "system:masters"),
}


@dataclass(frozen=True)
class Identity:
    """The files of one cluster's `pki` folder."""

    dir: Path

    @property
    def authority(self) -> Path:
        return self.dir / "ca.crt"

    @property
    def tokens(self) -> Path:
        return self.dir / "tokens.csv"

    @property
    def service_account_key(self) -> Path:
        return self.dir / "service-accounts.key"

    def certificate(self, name: str) -> Path:
        return self.dir / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.dir / f"{name}.key"


def make_identity(folder: Path, addresses: list[str]) -> Identity:
    """A new authority and what it signs for servers at these IP addresses, valid for a year."""
    folder.mkdir(parents=True, mode=0o700)
    identity = Identity(folder)
    _openssl(
        "req", "-x509", *NEW_KEY, "-keyout", identity.key("ca"), "-out", identity.authority, "-subj", "/CN=prism-test-ca", "-days", "365"
    )
    names = ["localhost", "vm", *("kubernetes" + suffix for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local"))]
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    _sign(identity, "server", "/CN=vm", alternatives)
    _sign(identity, "api-to-kubelet", "/O=system:masters/CN=apiserver-kubelet", "DNS:apiserver")
    _openssl("genrsa", "-out", identity.service_account_key, "2048")
    rows = [f'{secrets.token_hex(16)},{user},{name},"{group}"' for name, (user, group) in USERS.items()]
    identity.tokens.write_text("\n".join(rows) + "\n")
    identity.tokens.chmod(0o600)
    return identity


def write_kubeconfig(identity: Identity, server: str, name: str, file: Path) -> Path:
    """A kubeconfig (JSON, which YAML readers read) that carries the authority and the token of user `name`."""
    rows = [line.split(",") for line in identity.tokens.read_text().splitlines()]
    token = next(row[0] for row in rows if row[2] == name)
    authority = base64.b64encode(identity.authority.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "prism-test", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "prism-test", "context": {"cluster": "prism-test", "user": name}}],
        "current-context": "prism-test",
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps(config, indent=1))
    return file


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def _sign(identity: Identity, name: str, subject: str, alternatives: str) -> None:
    signer = ("-CA", identity.authority, "-CAkey", identity.key("ca"))
    out = ("-keyout", identity.key(name), "-out", identity.certificate(name))
    # Without this the request's defaults make every certificate an authority of its own.
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={alternatives}")
    _openssl("req", "-x509", *NEW_KEY, *signer, *out, "-subj", subject, "-days", "365", *leaf)


def _openssl(*arguments: str | Path) -> None:
    run(["openssl", *arguments])
