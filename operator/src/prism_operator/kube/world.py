"""The World of a cluster: what was decided, done with requests to the API server. One for each pass over a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prism_operator.api import PrismRun, PrismRunStatus
from prism_operator.children import AttemptRecord, Children, Wishes
from prism_operator.cluster import make_ray_cluster
from prism_operator.decide import StartAttempt, StopAttempt, job_of
from prism_operator.errors import BadRunError, ClusterError, StartRefusedError
from prism_operator.kube.attempts import children_of
from prism_operator.kube.door import CLUSTERS, CORE, RUNS, ApiError, Door
from prism_operator.kube.inventory import Inventory, RunKey, key_of
from prism_operator.kube.survey import survey
from prism_operator.names import FINALIZER, PLURAL, RUN_LABEL, cluster_name
from prism_operator.parse import read_status
from prism_operator.plan import RunPlan, Site, StagePlan, make_plan
from prism_operator.problems import Problem
from prism_operator.reasons import ACCEPTED
from prism_operator.settings import Settings
from prism_operator.timestamps import parse_time
from prism_trainer.contract.checkpoint import CheckpointRef

RAY_CLUSTERS = "rayclusters"
PODS = "pods"


class StaleError(ClusterError):
    """The object changed since this pass read it; the next pass reads it anew."""


@dataclass
class KubeWorld:
    """Holds the object as this pass read it, and afterwards as the API server last answered."""

    door: Door
    inventory: Inventory
    settings: Settings
    raw: dict[str, Any]
    now: datetime

    @property
    def key(self) -> RunKey:
        """Namespace and name."""
        return key_of(self.raw)

    async def survey(self, run: PrismRun) -> Site:
        """Refused where this cluster cannot carry it out. A podTemplate is shown to the API server before anything is promised."""
        site = survey(run)
        previous = read_status(self.raw)
        patched = [i for i, stage in enumerate(run.spec.stages) if stage.pod_template or run.spec.pod_template]
        accepted = previous is not None and previous.observed_generation == run.metadata.generation and previous.is_true(ACCEPTED)
        if patched and not accepted:
            await self._try_out(run, site, patched)
        return site

    async def list_children(self, plan: RunPlan) -> Children:
        """As the watches tell, with what the status remembers. Nothing is lost on the word of a watch alone: one may be behind another."""
        children = self._children(plan)
        if any(record.loss is not None and record.settled is None for record in children.attempts):
            await self.recount()
            children = self._children(plan)
        return children

    def _children(self, plan: RunPlan) -> Children:
        previous = read_status(self.raw)
        clusters, pods = self.inventory.children(self.key)
        own = [cluster for cluster in clusters if cluster.owner_uid == plan.owner.uid]
        foreign = {cluster.uid for cluster in clusters} - {cluster.uid for cluster in own}
        pods = [pod for pod in pods if pod.owner_uid not in foreign]
        since = parse_time(previous.started_at if previous else None) or parse_time(plan.owner.creation_timestamp) or self.now
        wishes = Wishes(since=since, deleted=self._is_deleted)
        progress = {cluster.name: told for cluster in own if (told := self.inventory.progress.get(f"{self.key.namespace}/{cluster.name}"))}
        return children_of(previous, own, pods, progress, wishes, self.now)

    async def write_status(self, status: PrismRunStatus) -> None:
        """Onto the version this pass has read; where somebody was faster, the pass is void."""
        value = _without_empty(status.to_dict())
        if value == self.raw.get("status"):
            return
        try:
            self._take(await self.door.apply_status(self.raw, value))
        except ApiError as error:
            raise self._stale(error) from error

    async def stop(self, stop: StopAttempt) -> None:
        """The pods get SIGTERM and their grace. Pods that should be gone long ago are taken out of the books."""
        name = stop.cluster or cluster_name(self.key.name, stop.stage, stop.number)
        if stop.kill:
            for pod in [pod for pod in self.inventory.children(self.key)[1] if pod.cluster == name and not pod.gone]:
                await self.door.delete(CORE, self.key.namespace, PODS, pod.name, uid=pod.uid, grace_seconds=0)
        await self._delete_cluster(name)

    async def release(self, ended: AttemptRecord) -> None:
        """Its outcome is in the status by now."""
        await self._delete_cluster(ended.cluster)

    async def _delete_cluster(self, name: str) -> None:
        """The one that was looked at, and no other of its name; one that is on its way out already is left to go."""
        clusters, pods = self.inventory.children(self.key)
        known = next((cluster for cluster in clusters if cluster.name == name), None)
        if known is not None and known.deleting is None and known.owner_uid == self.raw["metadata"]["uid"]:
            await self.door.delete(CLUSTERS, self.key.namespace, RAY_CLUSTERS, name, uid=known.uid)
        if known is None:
            for pod in [pod for pod in pods if pod.cluster == name and pod.deleting is None and not pod.gone]:
                await self.door.delete(CORE, self.key.namespace, PODS, pod.name, uid=pod.uid)

    async def delete(self, uri: str) -> None:
        """Only stages have the storage; they clean up."""

    async def start(self, plan: RunPlan, start: StartAttempt) -> None:
        """Under a name that only this attempt has, so that a second try, or a second operator, finds it taken."""
        if FINALIZER in (self.raw["metadata"].get("finalizers") or []):
            await self._refuse_stale()
        else:
            await self.hold()  # onto the version this pass has read, and before anything a deletion would have to wait for
        if start.job.attempt > 1:
            await self._refuse_blind()
        body = make_ray_cluster(plan, start, self.settings)
        try:
            self.inventory.put_cluster(await self.door.create(CLUSTERS, self.key.namespace, RAY_CLUSTERS, body))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                await self._adopt(body["metadata"]["name"], plan)
            elif error.status == 404:
                raise StartRefusedError("the API server knows no RayClusters; install KubeRay") from error
            elif 400 <= error.status < 500:
                raise StartRefusedError(error.message) from error
            else:
                raise

    async def hold(self) -> None:
        """Our finalizer, so that a deleted run goes in order: stages saved, pods gone, then the object."""
        finalizers = self.raw["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers and not self._is_deleted:
            await self._set_finalizers([*finalizers, FINALIZER])

    async def let_go(self) -> None:
        """Nothing of ours is left."""
        finalizers = self.raw["metadata"].get("finalizers") or []
        if FINALIZER in finalizers:
            await self._set_finalizers([name for name in finalizers if name != FINALIZER])

    async def abandon(self) -> None:
        """Deleting needs no plan, and must not wait for a spec to be corrected."""
        if not self._is_deleted:
            return
        clusters, pods = self.inventory.children(self.key)
        own = [cluster for cluster in clusters if cluster.owner_uid == self.raw["metadata"]["uid"]]
        for cluster in own:
            await self._delete_cluster(cluster.name)
        if not own and all(pod.gone for pod in pods):
            await self.let_go()

    async def expire(self) -> None:
        """Its time after the end has passed."""
        await self.door.delete(RUNS, self.key.namespace, PLURAL, self.key.name, uid=self.raw["metadata"]["uid"])

    async def recount(self) -> None:
        """Ask instead of trusting the watches, which do not tell of what went while they were away."""
        selector = f"{RUN_LABEL}={self.key.name}"
        known = self.inventory.uids(self.key)
        clusters = await self.door.list(CLUSTERS, self.key.namespace, RAY_CLUSTERS, selector)
        pods = await self.door.list(CORE, self.key.namespace, PODS, selector)
        self.inventory.replace_children(self.key, known, clusters, pods)

    async def refresh(self) -> bool:
        """Read the object anew; False where it is gone."""
        raw = await self.door.get(RUNS, self.key.namespace, PLURAL, self.key.name)
        if raw is None:
            return False
        self._take(raw)
        return True

    @property
    def _is_deleted(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]

    def _take(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.inventory.put_run(raw)

    async def _set_finalizers(self, finalizers: list[str]) -> None:
        version = self.raw["metadata"]["resourceVersion"]
        body = {"metadata": {"finalizers": finalizers, "resourceVersion": version}}
        try:
            self._take(await self.door.patch(RUNS, self.key.namespace, PLURAL, self.key.name, body))
        except ApiError as error:
            raise self._stale(error) from error

    async def _refuse_stale(self) -> None:
        """A pass over an old object must not create: what it wants to start may be done."""
        current = await self.door.get(RUNS, self.key.namespace, PLURAL, self.key.name)
        known = self.raw["metadata"]
        if current is None or current["metadata"]["uid"] != known["uid"]:
            raise StaleError(f"PrismRun {self.key.namespace}/{self.key.name} is gone")
        if current["metadata"]["resourceVersion"] != known["resourceVersion"]:
            self._take(current)
            raise StaleError(f"PrismRun {self.key.namespace}/{self.key.name} changed while it was looked at")

    async def _refuse_blind(self) -> None:
        """Nor may a stage be tried again by a pass that does not know every pod of the try before: one watch may be behind the other."""
        known = self.inventory.uids(self.key)
        await self.recount()
        if self.inventory.uids(self.key) - known:
            raise StaleError(f"PrismRun {self.key.namespace}/{self.key.name} has clusters or pods that were not known")

    async def _adopt(self, name: str, plan: RunPlan) -> None:
        """The name is taken: by an earlier try of ours, or by somebody else's object, which is left alone."""
        existing = await self.door.get(CLUSTERS, self.key.namespace, RAY_CLUSTERS, name)
        if existing is None:
            raise StaleError(f"RayCluster {name} is just going")
        owners = [owner["uid"] for owner in existing["metadata"].get("ownerReferences") or [] if owner.get("controller")]
        if owners != [plan.owner.uid]:
            raise StartRefusedError(f"RayCluster {name} exists and does not belong to this PrismRun; delete it, or rename the run")
        self.inventory.put_cluster(existing)

    async def _try_out(self, run: PrismRun, site: Site, stages: list[int]) -> None:
        """The RayCluster each patched stage would get, as a dry run."""
        plan = make_plan(run, site)
        problems = []
        for index in stages:
            stage = plan.stages[index]
            if stage.pinned is not None:
                continue
            path = ("spec", "stages", index, "podTemplate") if run.spec.stages[index].pod_template else ("spec", "podTemplate")
            try:
                body = make_ray_cluster(plan, _sample(plan, stage), self.settings)
                await self.door.create(CLUSTERS, self.key.namespace, RAY_CLUSTERS, body, dry_run=True)
            except ApiError as error:
                if error.status in (400, 422):
                    problems.append(Problem(path, f"the API server refuses the pods it makes: {error.message}"))
                elif error.reason != "AlreadyExists":
                    raise
            except (AttributeError, KeyError, TypeError) as error:
                problems.append(Problem(path, f"does not fit a pod ({error}); write it as a pod template: metadata and spec"))
        if problems:
            raise BadRunError(problems)

    def _stale(self, error: ApiError) -> ClusterError:
        return StaleError(str(error)) if error.status in (404, 409) else error


def _sample(plan: RunPlan, stage: StagePlan) -> StartAttempt:
    """An attempt as it would be, inputs aside."""
    nothing = CheckpointRef(stage=stage.name, uri=plan.root_uri, digest=None, step=0, revision=None)
    return StartAttempt(job_of(plan, stage, 1, dict.fromkeys((wire.role for wire in stage.wires), nothing), None), env=stage.env)


def _without_empty(value: Any) -> Any:
    """A map that server-side apply empties becomes null, which the schema refuses; one that is not applied goes."""
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [])}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value
