"""The measurements, in the order in which they are taken. Each returns its figures and leaves the cluster to the next."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.operator_bench.api import AT_ONCE, CLUSTERS, JOBS, PODS, RUNS, Api, in_parallel, paced, until
from benchmarks.operator_bench.audit import Audit, num_writes, told
from benchmarks.operator_bench.cluster import AuditedControlPlane
from benchmarks.operator_bench.figures import Figures, histogram_percentile, p50_p99
from benchmarks.operator_bench.objects import FIRST, SECOND, ended_stage, prismrun, rayjob
from benchmarks.operator_bench.operator_process import OperatorProcess
from benchmarks.operator_bench.sightings import Sightings
from benchmarks.operator_bench.sizes import APART_SECONDS, PACE, TRANSITIONS_A_SECOND, Sizes

QUIET_SECONDS = 2.0
RUNNING_WRITES = 1
"""Of a transition: the status that says that the next stage runs."""
RECONCILES = "prism_reconcile_duration_seconds_count"
DEPTH = "prism_workqueue_depth"
WAIT = "prism_workqueue_wait_seconds"


@dataclass
class Bench:
    """One control plane with KubeRay and our operator."""

    plane: AuditedControlPlane
    api: Api
    operator: OperatorProcess
    seen: Sightings
    sizes: Sizes
    notes: list[str] = field(default_factory=list)
    """For people, beside the figures."""
    ended: set[str] = field(default_factory=set)
    """Runs whose first stage has ended."""

    @property
    def audit(self) -> Audit:
        return Audit(self.plane.audit_log)


async def empty(bench: Bench) -> Figures:
    """M5 without a run."""
    await asyncio.sleep(QUIET_SECONDS)
    return {"rss_0": bench.operator.rss_mib()}


async def one_at_a_time(bench: Bench) -> Figures:
    """M1 and M2. The first run of all finds a watch that is just being opened, and is not counted."""
    await bench.api.create(RUNS, prismrun("first"))
    await until(partial(bench.seen.pods.__contains__, _cluster("first")), "the first run has its pod")
    to_cluster, to_pods = [], []
    for name in [f"single-{i}" for i in range(bench.sizes.singles)]:
        cluster = _cluster(name)
        accepted = await bench.api.create(RUNS, prismrun(name))
        await until(partial(bench.seen.pods.__contains__, cluster), f"{cluster} has its pod")
        to_cluster.append(bench.seen.clusters[cluster] - accepted)
        to_pods.append(max(bench.seen.pods[cluster]) - accepted)
        await asyncio.sleep(APART_SECONDS)
    await _clear(bench, RUNS)
    return p50_p99("cluster", to_cluster) | p50_p99("pods", to_pods)


async def jobs_one_at_a_time(bench: Bench) -> Figures:
    """M9: KubeRay's own way from a RayJob to its RayCluster."""
    times = []
    for name in [f"single-job-{i}" for i in range(bench.sizes.singles)]:
        accepted = await bench.api.create(JOBS, rayjob(name))
        await until(partial(bench.seen.of_jobs.__contains__, name), f"RayJob {name} has its RayCluster")
        times.append(bench.seen.of_jobs[name] - accepted)
        await asyncio.sleep(APART_SECONDS)
    await _clear(bench, JOBS)
    return p50_p99("job", times)


async def steady(bench: Bench) -> Figures:
    """M3: waiting in the operator's queue while runs come at a steady rate."""
    before = await bench.operator.counters()
    names = [f"steady-{i}" for i in range(bench.sizes.paced)]
    await paced([partial(bench.api.create, RUNS, prismrun(name)) for name in names], PACE)
    await until(lambda: all(_cluster(name) in bench.seen.clusters for name in names), "every steady run has its cluster")
    wait = histogram_percentile(before, await bench.operator.counters(), WAIT, 0.99)
    await _clear(bench, RUNS)
    return {"steady_wait_p99": wait}


async def burst_of_jobs(bench: Bench) -> Figures:
    """M9."""
    names = [f"burst-job-{i}" for i in range(bench.sizes.jobs)]
    accepted = await in_parallel([partial(bench.api.create, JOBS, rayjob(name)) for name in names])
    await until(lambda: all(name in bench.seen.of_jobs for name in names), "every RayJob has its RayCluster", 600, every=0.05)
    rate = len(names) / (max(bench.seen.of_jobs[name] for name in names) - min(accepted))
    await _clear(bench, JOBS)
    return {"job_burst": rate}


async def burst(bench: Bench) -> Figures:
    """M3: all at once. The runs stay for what follows."""
    cpu, before = bench.operator.cpu_seconds(), await bench.operator.counters()
    names = run_names(bench)
    accepted = await in_parallel([partial(bench.api.create, RUNS, prismrun(name)) for name in names])
    await until(lambda: all(_cluster(name) in bench.seen.clusters for name in names), "every run has its cluster", 600, every=0.05)
    last = max(bench.seen.clusters[_cluster(name)] for name in names)
    await until(lambda: all(_cluster(name) in bench.seen.heads for name in names), "every run has its head pod", 900, every=0.2)
    bench.notes.append(f"burst: creates took {max(accepted) - min(accepted):.1f} s, clusters {last - min(accepted):.1f} s")
    await settle(bench)
    wait = histogram_percentile(before, await bench.operator.counters(), WAIT, 0.99)
    cpu_ms = 1000 * (bench.operator.cpu_seconds() - cpu) / len(names)
    rate = len(names) / (last - min(accepted))
    return {"burst": rate, "burst_wait_p99": wait, "burst_cpu_ms": cpu_ms, "rss_runs": bench.operator.rss_mib()}


async def idle(bench: Bench) -> Figures:
    """M4: nothing happens, but that every stage is asked for its progress."""
    started, cpu, mark = time.perf_counter(), bench.operator.cpu_seconds(), bench.audit.mark()
    await asyncio.sleep(bench.sizes.idle_seconds)
    seconds = time.perf_counter() - started
    busy, requests = bench.operator.cpu_seconds() - cpu, bench.audit.since(mark)
    bench.notes.append(f"idle: {told(requests)} in {seconds:.0f} s")
    return {
        "idle_writes": num_writes(requests),
        "idle_requests": sum(requests.values()),
        "idle_cpu": 100 * busy / seconds,
    }


async def unasked(bench: Bench) -> Figures:
    """M4 without the questions about progress: the operator starts again with them off."""
    bench.operator.stop()
    bench.operator.start(progress_seconds=1e6)
    await _until_all_looked_at(bench)
    await settle(bench)
    cpu, started = bench.operator.cpu_seconds(), time.perf_counter()
    await asyncio.sleep(bench.sizes.unasked_seconds)
    return {"unasked_cpu": 100 * (bench.operator.cpu_seconds() - cpu) / (time.perf_counter() - started)}


async def restart(bench: Bench) -> Figures:
    """M6: stages end while the operator is dead."""
    missed = [name for name in run_names(bench) if name not in bench.ended][: bench.sizes.missed]
    bench.operator.kill()
    killed = time.perf_counter()
    await in_parallel([partial(end_first_stage, bench, name) for name in missed])
    bench.notes.append(f"restart: {len(missed)} stages ended in the first {time.perf_counter() - killed:.2f} s")
    bench.operator.start()
    await _until_all_looked_at(bench)
    done = time.perf_counter()
    await settle(bench)
    lost = [name for name in missed if _cluster(name, SECOND) not in bench.seen.clusters]
    return {"restart": done - killed, "lost": len(lost), "rss_restarted": bench.operator.rss_mib()}


async def transitions(bench: Bench) -> Figures:
    """M4, M7 and M8: first stages end one after another, and the second ones begin."""
    names = [name for name in run_names(bench) if name not in bench.ended][: bench.sizes.transitions]
    async with bench.seen.watch_runs(bench.api):
        mark, cpu = bench.audit.mark(), bench.operator.cpu_seconds()
        ends = await paced([partial(end_first_stage, bench, name) for name in names], TRANSITIONS_A_SECOND)
        await until(lambda: all((name, FIRST) in bench.seen.succeeded for name in names), "every status tells of its stage's end")
        await settle(bench)
        requests = bench.audit.since(mark)
    told_after = [bench.seen.succeeded[name, FIRST] - end for name, end in zip(names, ends, strict=True)]
    next_after = [bench.seen.clusters[_cluster(name, SECOND)] - end for name, end in zip(names, ends, strict=True)]
    bench.notes.append(f"transitions: {told(requests)} for {len(names)}")
    writes = num_writes(requests) / len(names)
    counts = {"transition_writes": writes - RUNNING_WRITES, "transition_writes_running": writes}
    cpu_ms = 1000 * (bench.operator.cpu_seconds() - cpu) / len(names)
    return p50_p99("told", told_after) | p50_p99("next", next_after) | counts | {"transition_cpu_ms": cpu_ms}


async def verify(bench: Bench) -> Figures:
    """M6: of every stage one attempt ever, and of every run one living cluster."""
    ours = [(run, stage) for run, stage, _ in bench.seen.attempts]
    again = len(ours) - len(set(ours)) + sum(attempt > 1 for _, _, attempt in bench.seen.attempts)
    living = [
        raw["metadata"]["labels"]["prism.dev/run"]
        for raw in await bench.api.objects(CLUSTERS)
        if "deletionTimestamp" not in raw["metadata"]
    ]
    return {"duplicates": again + len(living) - len(set(living))}


async def many(bench: Bench) -> Figures:
    """M5: ten times as many runs, of which the others are suspended: it is the operator that is measured, not ten thousand pods."""
    before = (await bench.operator.counters()).get(RECONCILES, 0.0)
    names = [f"waiting-{i}" for i in range(9 * bench.sizes.runs)]
    await in_parallel([partial(bench.api.create, RUNS, prismrun(name, suspend=True)) for name in names])
    while (counters := await bench.operator.counters())[DEPTH] or counters[RECONCILES] - before < len(names):
        await asyncio.sleep(1.0)
    await asyncio.sleep(QUIET_SECONDS)
    return {"rss_many": bench.operator.rss_mib()}


async def bare(bench: Bench) -> Figures:
    """M1 and M3: the writes that begin a run, by a client that does nothing else, nobody acting on them: what this machine can give."""
    bench.operator.stop()
    bench.plane.processes.stop("kuberay-operator")
    (like,), (cluster,) = [await bench.api.objects(f"{path}?limit=1") for path in (RUNS, CLUSTERS)]
    await in_parallel([partial(_write_by_hand, bench, f"warm-{i}", like, cluster) for i in range(AT_ONCE)])
    seconds = [await _write_by_hand(bench, f"bare-{i}", like, cluster) for i in range(bench.sizes.singles)]
    started, names = time.perf_counter(), [f"bare-burst-{i}" for i in range(bench.sizes.bare)]
    await in_parallel([partial(_write_by_hand, bench, name, like, cluster) for name in names])
    return {"bare": len(names) / (time.perf_counter() - started)} | p50_p99("bare", seconds)


async def _write_by_hand(bench: Bench, name: str, like: dict[str, Any], cluster: dict[str, Any]) -> float:
    """Seconds from the run's creation to its cluster's."""
    accepted = await bench.api.create(RUNS, prismrun(name))
    await bench.api.merge(f"{RUNS}/{name}", {"metadata": {"finalizers": ["benchmark.prism.dev/held"]}})
    body = {key: cluster[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
    created = await bench.api.create(CLUSTERS, body)
    await bench.api.merge(f"{RUNS}/{name}/status", {"status": like["status"]})
    return created - accepted


def run_names(bench: Bench) -> list[str]:
    """The runs that stay."""
    return [f"run-{i}" for i in range(bench.sizes.runs)]


async def end_first_stage(bench: Bench, run: str) -> float:
    """As the kubelet would tell; when the API server accepted it."""
    bench.ended.add(run)
    return await bench.api.patch_status(f"{PODS}/{bench.seen.heads[_cluster(run)]}", ended_stage(run, FIRST))


async def settle(bench: Bench, seconds: float = 900.0) -> None:
    """Until every pod runs and nothing has happened for a while, so that the next measurement starts from rest."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline and bench.operator.pid:
        await asyncio.sleep(QUIET_SECONDS / 2)
        if time.perf_counter() - bench.seen.at > QUIET_SECONDS and not await bench.api.names(PODS, "fieldSelector=status.phase!=Running"):
            return
    raise TimeoutError(f"the cluster does not come to rest in {seconds:.0f} s")


async def _until_all_looked_at(bench: Bench) -> None:
    """By the operator's own counters, which are not asked too often, as the answer costs it time."""
    await bench.operator.until_ready()
    while True:
        counters = await bench.operator.counters()
        if counters.get(RECONCILES, 0.0) >= len(run_names(bench)) and not counters[DEPTH]:
            return
        await asyncio.sleep(0.2)


async def _clear(bench: Bench, path: str) -> None:
    await bench.api.delete_all(path)
    await until(lambda: bool(bench.operator.pid) and not bench.seen.alive, "every RayCluster is gone", 600, every=0.1)
    await settle(bench)


def _cluster(run: str, stage: str = FIRST) -> str:
    return f"{run}-{stage}-a1"
