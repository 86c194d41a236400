"""What the watches have told: every run as compact JSON, its RayClusters and pods as facts. It is a cache.

What we wrote ourselves is put in at once, as the API server answered it, so that a pass never sees the world older than its own last act.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from prism_operator.kube.facts import ClusterFacts, PodFacts, cluster_facts, pod_facts
from prism_operator.names import RUN_LABEL, stage_container
from prism_trainer.contract.report import Progress


class RunKey(NamedTuple):
    """A PrismRun."""

    namespace: str
    name: str


MAX_ENDED = 10_000
"""Objects whose end is remembered, so that an older event, or an answer that comes late, does not bring them back."""
UNORDERED = 2**63


@dataclass
class _Children:
    clusters: dict[str, ClusterFacts] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)
    gone: dict[str, PodFacts] = field(default_factory=dict)
    """Head pods that are gone and left a word no pass has heard yet."""


@dataclass
class Inventory:
    """By run."""

    _runs: dict[RunKey, bytes] = field(default_factory=dict)
    _versions: dict[RunKey, tuple[str, int]] = field(default_factory=dict)
    """uid and version."""
    _children: dict[RunKey, _Children] = field(default_factory=dict)
    _child_versions: dict[str, int] = field(default_factory=dict)
    """By uid."""
    _ended: dict[str, None] = field(default_factory=dict)
    """Uids, oldest first."""
    progress: dict[str, Progress] = field(default_factory=dict)
    """Of live attempts, by `namespace/cluster`; what the pods said when they were last asked."""

    def put_run(self, raw: Mapping[str, Any]) -> bool:
        """Whether it is news: an echo of our own write, or something older, is not."""
        key, uid, version = key_of(raw), str(raw["metadata"]["uid"]), _version(raw)
        if uid in self._ended or self.version(key) >= version != UNORDERED:
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
        known = self._versions.pop(key, None)
        if known is not None:
            self._end(known[0])

    def end_run(self, raw: Mapping[str, Any]) -> None:
        """A watch says that it is gone; another of its name may be there already."""
        self._end(str(raw["metadata"]["uid"]))
        if self._versions.get(key_of(raw), ("", -1))[0] == raw["metadata"]["uid"]:
            self.drop_run(key_of(raw))

    def run(self, key: RunKey) -> dict[str, Any] | None:
        """A fresh copy; None for one that is gone or settled."""
        stored = self._runs.get(key)
        return json.loads(stored) if stored else None

    def knows(self, key: RunKey) -> bool:
        """Also of one that is settled."""
        return key in self._versions

    def runs(self) -> list[RunKey]:
        """All that are known."""
        return list(self._runs)

    def put_cluster(self, raw: Mapping[str, Any]) -> RunKey | None:
        """The run to look at; none for one that is not ours, and for what changes none of the facts: KubeRay writes a status often."""
        facts = cluster_facts(raw)
        return self._put(raw, facts, lambda children: children.clusters, facts.run) if facts else None

    def put_pod(self, raw: Mapping[str, Any]) -> RunKey | None:
        """The run to look at; none for one that is not ours, and for what changes none of the facts."""
        facts = pod_facts(raw)
        run = (raw["metadata"].get("labels") or {}).get(RUN_LABEL)
        return self._put(raw, facts, lambda children: children.pods, run) if facts and run else None

    def drop_cluster(self, raw: Mapping[str, Any]) -> RunKey | None:
        """It is gone."""
        return self._drop(raw, lambda children: children.clusters)

    def drop_pod(self, raw: Mapping[str, Any]) -> RunKey | None:
        """It is gone. A head's last words may come with the very event that says so: they wait for the next pass."""
        key, facts = self._drop(raw, lambda children: children.pods), pod_facts(raw)
        if key and facts and facts.is_head and any(container.state == "terminated" for container in facts.containers.values()):
            self._children.setdefault(key, _Children()).gone[facts.uid] = replace(facts, gone=True)
        return key

    def children(self, key: RunKey) -> tuple[list[ClusterFacts], list[PodFacts]]:
        """RayClusters and pods of a run, and pods that are gone and not heard yet."""
        children = self._children.get(key)
        return (list(children.clusters.values()), [*children.pods.values(), *children.gone.values()]) if children else ([], [])

    def unheard(self, key: RunKey) -> tuple[str, ...]:
        """Uids of the pods that are gone and not heard yet."""
        children = self._children.get(key)
        return tuple(children.gone) if children else ()

    def hear(self, key: RunKey, uids: tuple[str, ...]) -> None:
        """A pass has written down what they said."""
        children = self._children.get(key)
        if children is not None:
            for uid in uids:
                children.gone.pop(uid, None)
            self._tidy(key)

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

    def uids(self, key: RunKey) -> frozenset[str]:
        """Of a run's RayClusters and pods."""
        children = self._children.get(key, _Children())
        return frozenset(cluster.uid for cluster in children.clusters.values()) | frozenset(pod.uid for pod in children.pods.values())

    def children_by_uid(self) -> dict[str, RunKey]:
        """Every RayCluster and pod that is known, and whose it is."""
        return self.clusters_by_uid() | self.pods_by_uid()

    def clusters_by_uid(self) -> dict[str, RunKey]:
        """Every RayCluster that is known, and whose it is."""
        return {cluster.uid: key for key, children in self._children.items() for cluster in children.clusters.values()}

    def pods_by_uid(self) -> dict[str, RunKey]:
        """The same for pods."""
        return {pod.uid: key for key, children in self._children.items() for pod in children.pods.values()}

    def unknown_clusters(self, listed: Iterable[Mapping[str, Any]]) -> set[RunKey]:
        """Runs that have RayClusters, of which this is the metadata, that are not known, or not as they are now."""
        ours = (metadata for metadata in listed if cluster_facts({"metadata": metadata}))
        return {_run_of(metadata) for metadata in ours if self._is_behind(metadata)}

    def unknown_pods(self, listed: Iterable[Mapping[str, Any]]) -> set[RunKey]:
        """The same for pods."""
        ours = (metadata for metadata in listed if pod_facts({"metadata": metadata}))
        return {_run_of(metadata) for metadata in ours if self._is_behind(metadata)}

    def _is_behind(self, metadata: Mapping[str, Any]) -> bool:
        uid = metadata["uid"]
        return uid not in self._ended and self._child_versions.get(uid, -1) < _version({"metadata": metadata})

    def replace_children(self, key: RunKey, known: frozenset[str], clusters: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
        """As a fresh listing has them: what was `known` before it was asked for and is not in it has ended, and no watch told of it."""
        children = self._children.get(key, _Children())
        parts: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [(children.clusters, clusters), (children.pods, pods)]
        for mapping, listed in parts:
            there = {raw["metadata"]["uid"] for raw in listed}
            for name in [name for name, facts in list(mapping.items()) if facts.uid in known - there]:
                self._end(mapping.pop(name).uid)
        self._tidy(key)
        for raw in clusters:
            self.put_cluster(raw)
        for raw in pods:
            self.put_pod(raw)

    def _put(self, raw: Mapping[str, Any], facts: Any, part: Callable[[_Children], dict[str, Any]], run: str) -> RunKey | None:
        """A version that is known came as an answer to some pass, which may have looked before: so it is news when the watch tells it."""
        metadata, version = raw["metadata"], _version(raw)
        known = self._child_versions.get(metadata["uid"], -1)
        if metadata["uid"] in self._ended or version < known:
            return None
        key = RunKey(metadata["namespace"], run)
        place = part(self._children.setdefault(key, _Children()))
        is_news = version == known or place.get(metadata["name"]) != facts
        self._child_versions[metadata["uid"]] = version
        place[metadata["name"]] = facts
        return key if is_news else None

    def _drop(self, raw: Mapping[str, Any], part: Callable[[_Children], dict[str, Any]]) -> RunKey | None:
        metadata = raw["metadata"]
        self._end(metadata["uid"])
        run = (metadata.get("labels") or {}).get(RUN_LABEL)
        if not run:
            return None
        key = RunKey(metadata["namespace"], run)
        children = self._children.get(key)
        known: ClusterFacts | PodFacts | None = part(children).get(metadata["name"]) if children else None
        if children is not None and known is not None and known.uid == metadata["uid"]:
            del part(children)[metadata["name"]]
            self.progress.pop(f"{metadata['namespace']}/{metadata['name']}", None)
            self._tidy(key)
        return key

    def _tidy(self, key: RunKey) -> None:
        children = self._children.get(key)
        if children is not None and not (children.clusters or children.pods or children.gone):
            del self._children[key]

    def _end(self, uid: str) -> None:
        self._child_versions.pop(uid, None)
        self._ended[uid] = None
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]


def key_of(raw: Mapping[str, Any]) -> RunKey:
    """Of a PrismRun."""
    return RunKey(raw["metadata"]["namespace"], raw["metadata"]["name"])


def _run_of(metadata: Mapping[str, Any]) -> RunKey:
    return RunKey(metadata["namespace"], metadata["labels"][RUN_LABEL])


def _version(raw: Mapping[str, Any]) -> int:
    """Versions of one kind in one cluster are numbers that grow; where they were not, everything would be news."""
    version = str(raw["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else UNORDERED


def _compact(raw: Mapping[str, Any]) -> bytes:
    """Without what only the API server and kubectl need: that is half of the object."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    if "annotations" in metadata:
        kept = {key: value for key, value in metadata["annotations"].items() if key != "kubectl.kubernetes.io/last-applied-configuration"}
        metadata["annotations"] = kept
    return json.dumps({**raw, "metadata": metadata}, separators=(",", ":")).encode()
