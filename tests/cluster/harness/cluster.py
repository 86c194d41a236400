"""What a test holds: one cluster, ours or the one of PRISM_TEST_KUBECONFIG, and what can be asked of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.harness import images
from cluster.harness.build import program
from cluster.harness.commands import run
from cluster.harness.node import S3_ACCESS_KEY, S3_ENDPOINT, Node

Object = Mapping[str, Any]


@dataclass(frozen=True)
class ObjectStore:
    """An S3 server: its address as pods and this machine see it, and the keys of its root user."""

    endpoint: str
    access_key: str
    secret_key: str
    dir: Path | None
    """Its buckets as folders, where it is ours: tests look at, and damage, what lies in them."""

    def credentials(self) -> str:
        """An AWS shared-credentials file."""
        return f"[default]\naws_access_key_id = {self.access_key}\naws_secret_access_key = {self.secret_key}\n"

    def make_bucket(self, name: str) -> str:
        """Its address, `s3://name`. Where the server is not ours, the bucket must exist."""
        if self.dir is not None:
            (self.dir / name).mkdir(exist_ok=True)
        return f"s3://{name}"


@dataclass(frozen=True)
class Cluster:
    """A cluster with KubeRay. `node` is None where it is somebody else's: then components cannot be stopped."""

    admin: Path
    """Its administrator's kubeconfig."""
    node: Node | None = None

    def kubeconfig(self) -> Path:
        return self.admin

    @property
    def environment(self) -> dict[str, str]:
        """For programs that talk to this cluster."""
        return {"KUBECONFIG": str(self.admin)}

    def kubectl(self, *arguments: str | Path, input: str | None = None, check: bool = True, timeout: float = 120) -> str:
        return run([_tool("kubectl"), *arguments], input=input, env=self.environment, check=check, timeout=timeout)

    def helm(self, *arguments: str | Path, check: bool = True, timeout: float = 300) -> str:
        return run([_tool("helm"), *arguments], env=self.environment, check=check, timeout=timeout)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """The object, or None where there is none."""
        text = self.kubectl("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "-o", "json")
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        text = self.kubectl("get", kind, f"--namespace={namespace}", f"--selector={selector}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def apply(self, what: Object | Sequence[Object] | str, namespace: str | None = None) -> str:
        """Applies objects, or YAML text, client-side as a user does. Raises `CommandFailed` with the server's refusal."""
        items = what if isinstance(what, str) else json.dumps(_as_list(what))
        place = [f"--namespace={namespace}"] if namespace else []
        return self.kubectl("apply", *place, "-f", "-", input=items)

    def make_volume(self, namespace: str, name: str) -> Path | None:
        """A claim that any number of pods of uid 1000 share. Returns its folder on this machine, or None on somebody else's cluster."""
        claim: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10Gi"}}}
        folder = None
        if self.node is not None:
            folder = self.node.dir / "volumes" / namespace / name
            folder.mkdir(parents=True)
            os.chown(folder, 1000, 1000)
            claim |= {"storageClassName": "", "volumeName": f"{namespace}-{name}"}
            self.apply(_host_volume(namespace, name, folder))
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim}, namespace)
        return folder

    def remove_volumes(self, namespace: str) -> None:
        if self.node is not None:
            self.kubectl("delete", "persistentvolumes", f"--selector=prism.test/namespace={namespace}", "--wait=false")
            shutil.rmtree(self.node.dir / "volumes" / namespace, ignore_errors=True)

    @property
    def object_store(self) -> ObjectStore:
        """Raises `LookupError` where the cluster is not ours and the environment names no store."""
        if self.node is not None:
            return ObjectStore(S3_ENDPOINT, S3_ACCESS_KEY, self.node.s3_secret_key, self.node.dir / "s3")
        endpoint, access_key, secret_key = (os.environ.get(f"PRISM_TEST_S3_{name}") for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))
        if not (endpoint and access_key and secret_key):
            raise LookupError("With PRISM_TEST_KUBECONFIG, object storage needs PRISM_TEST_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY.")
        return ObjectStore(endpoint, access_key, secret_key, dir=None)

    @property
    def operator_image(self) -> str:
        return os.environ.get("PRISM_TEST_OPERATOR_IMAGE", images.OPERATOR)

    @property
    def trainer_image(self) -> str:
        return os.environ.get("PRISM_TEST_TRAINER_IMAGE", images.TRAINER)

    def stop(self, component: str) -> None:
        """Ends a part of the control plane or node (`kube-apiserver`, `kuberay-operator`, `s3`, ...) until `start`."""
        self._node().processes.stop(component)

    def start(self, component: str) -> None:
        """Starts a stopped part again, and waits for the API server where it is that."""
        self._node().processes.restart(component)
        if component in ("etcd", "kube-apiserver"):
            self._node().control_plane.wait_for_api()

    def _node(self) -> Node:
        if self.node is None:
            raise LookupError("Components of a cluster given by PRISM_TEST_KUBECONFIG cannot be stopped.")
        return self.node


def _as_list(what: Object | Sequence[Object]) -> Object:
    return what if isinstance(what, Mapping) else {"apiVersion": "v1", "kind": "List", "items": list(what)}


def _host_volume(namespace: str, name: str, folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}", "labels": {"prism.test/namespace": namespace}},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "10Gi"},
            "claimRef": {"namespace": namespace, "name": name},
            "hostPath": {"path": str(folder)},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
        },
    }


def _tool(name: str) -> str | Path:
    """The one we build; on somebody else's cluster, where nothing is built, the machine's own."""
    try:
        return program(name)
    except FileNotFoundError:
        if found := shutil.which(name):
            return found
        raise
