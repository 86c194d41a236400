"""What the watches have told: every run as compact JSON, its RayClusters and pods as facts. It is a cache.

What we wrote ourselves is put in at once, as the API server answered it, so that a pass never sees the world older than its own last act.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prism_operator.kube.facts import ClusterFacts, PodFacts, cluster_facts, pod_facts
from prism_operator.names import RUN_LABEL, stage_container
from prism_trainer.contract.report import Progress


class RunKey(NamedTuple):
    """A PrismRun."""

    namespace: str
    name: str


@dataclass
class _Children:
    clusters: dict[str, ClusterFacts] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)


@dataclass
class Inventory:
    """By run."""

    _runs: dict[RunKey, bytes] = field(default_factory=dict)
    _versions: dict[RunKey, tuple[str, int]] = field(default_factory=dict)
    """uid and version."""
    _children: dict[RunKey, _Children] = field(default_factory=dict)
    _child_versions: dict[str, int] = field(default_factory=dict)
    """By uid."""
    progress: dict[str, Progress] = field(default_factory=dict)
    """Of live attempts, by `namespace/cluster`; what the pods said when they were last asked."""

    def put_run(self, raw: Mapping[str, Any]) -> bool:
        """Whether it is news: an echo of our own write, or something older, is not."""
        key, uid, version = key_of(raw), str(raw["metadata"]["uid"]), _version(raw)
        known = self._versions.get(key)
        if known is not None and known[0] == uid and version <= known[1]:
            return False
        self._versions[key] = uid, version
        self._runs[key] = _compact(raw)
        return True

    def settle_run(self, key: RunKey) -> None:
        """A finished run that nothing can change any more: only its version is kept."""
        self._runs[key] = b""

    def drop_run(self, key: RunKey) -> None:
        """It is gone."""
        self._runs.pop(key, None)
        self._versions.pop(key, None)

    def run(self, key: RunKey) -> dict[str, Any] | None:
        """A fresh copy; None for one that is gone or settled."""
        stored = self._runs.get(key)
        return json.loads(stored) if stored else None

    def runs(self) -> list[RunKey]:
        """All that are known."""
        return list(self._runs)

    def put_cluster(self, raw: Mapping[str, Any]) -> RunKey | None:
        """The run it belongs to; none for one that is not ours."""
        facts = cluster_facts(raw)
        return self._put(raw, facts, lambda children: children.clusters, facts.run) if facts else None

    def put_pod(self, raw: Mapping[str, Any]) -> RunKey | None:
        """The run it belongs to; none for one that is not ours."""
        facts = pod_facts(raw)
        run = (raw["metadata"].get("labels") or {}).get(RUN_LABEL)
        return self._put(raw, facts, lambda children: children.pods, run) if facts and run else None

    def drop_cluster(self, raw: Mapping[str, Any]) -> RunKey | None:
        """It is gone."""
        return self._drop(raw, lambda children: children.clusters)

    def drop_pod(self, raw: Mapping[str, Any]) -> RunKey | None:
        """It is gone."""
        return self._drop(raw, lambda children: children.pods)

    def children(self, key: RunKey) -> tuple[list[ClusterFacts], list[PodFacts]]:
        """RayClusters and pods of a run."""
        children = self._children.get(key)
        return (list(children.clusters.values()), list(children.pods.values())) if children else ([], [])

    def running(self) -> Iterator[tuple[RunKey, ClusterFacts, PodFacts]]:
        """Every attempt whose stage runs, with its head pod."""
        for key, children in self._children.items():
            heads = {pod.cluster: pod for pod in children.pods.values() if pod.is_head and pod.address}
            for cluster in children.clusters.values():
                head = heads.get(cluster.name)
                stages = (cluster.stage, *(follower for follower, _, _ in cluster.followers))
                containers = [head.containers.get(stage_container(stage)) for stage in stages] if head else []
                if head is not None and any(stage is not None and stage.state == "running" for stage in containers):
                    yield key, cluster, head

    def version(self, key: RunKey) -> int:
        """Of the object as it was last seen; -1 for one that never was."""
        return self._versions.get(key, ("", -1))[1]

    def replace_children(self, key: RunKey, clusters: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
        """As a fresh listing has them: an object whose end no watch told of is dropped."""
        children = self._children.get(key, _Children())
        for mapping, listed in ((children.clusters, clusters), (children.pods, pods)):
            names = {raw["metadata"]["name"] for raw in listed}
            for name in [name for name in mapping if name not in names]:
                del mapping[name]
        for raw in clusters:
            self.put_cluster(raw)
        for raw in pods:
            self.put_pod(raw)

    def _put(self, raw: Mapping[str, Any], facts: Any, part: Callable[[_Children], dict[str, Any]], run: str) -> RunKey:
        metadata = raw["metadata"]
        key = RunKey(metadata["namespace"], run)
        if _version(raw) >= self._child_versions.get(metadata["uid"], -1):
            self._child_versions[metadata["uid"]] = _version(raw)
            part(self._children.setdefault(key, _Children()))[metadata["name"]] = facts
        return key

    def _drop(self, raw: Mapping[str, Any], part: Callable[[_Children], dict[str, Any]]) -> RunKey | None:
        metadata = raw["metadata"]
        self._child_versions.pop(metadata["uid"], None)
        run = (metadata.get("labels") or {}).get(RUN_LABEL)
        if not run:
            return None
        key = RunKey(metadata["namespace"], run)
        children = self._children.get(key)
        if children is not None:
            part(children).pop(metadata["name"], None)
            self.progress.pop(f"{metadata['namespace']}/{metadata['name']}", None)
            if not children.clusters and not children.pods:
                del self._children[key]
        return key


def key_of(raw: Mapping[str, Any]) -> RunKey:
    """Of a PrismRun."""
    return RunKey(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _version(raw: Mapping[str, Any]) -> int:
    """Versions of one kind in one cluster are numbers that grow; where they were not, everything would be news."""
    version = str(raw["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 2**63


def _compact(raw: Mapping[str, Any]) -> bytes:
    """Without what only the API server and kubectl need: that is half of the object."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    if "annotations" in metadata:
        kept = {key: value for key, value in metadata["annotations"].items() if key != "kubectl.kubernetes.io/last-applied-configuration"}
        metadata["annotations"] = kept
    return json.dumps({**raw, "metadata": metadata}, separators=(",", ":")).encode()
