"""The same work on every node, by Ray tasks that are bound to their node; who does not answer in time is named."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from prism_trainer.contract.preflight import AllReduceFacts, NodeFacts, PreflightRequest, StorageFacts
from prism_trainer.preflight.storage import wait_for_all, write_own

ANSWER_SECONDS = 60.0
"""For what takes no time by itself: a worker process starts and imports our code."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Node:
    """A Ray node."""

    id: str
    name: str
    """Its address; two on one machine are told apart by a number."""
    address: str
    cpus: int


def alive_nodes() -> list[Node]:
    """By address."""
    found = sorted((one for one in ray.nodes() if one["Alive"]), key=lambda one: (one["NodeManagerAddress"], one["NodeID"]))
    addresses = [one["NodeManagerAddress"] for one in found]
    names = [f"{a}#{addresses[:i].count(a) + 1}" if addresses.count(a) > 1 else a for i, a in enumerate(addresses)]
    return [
        Node(one["NodeID"], name, one["NodeManagerAddress"], int(one["Resources"].get("CPU", 0)))
        for one, name in zip(found, names, strict=True)
    ]


def look_at_each(nodes: Sequence[Node], request: PreflightRequest) -> tuple[NodeFacts, ...]:
    """With all its GPUs, in a worker that ends afterwards and leaves nothing on them."""
    answers = on_each(
        nodes, _look, [(request.to_dict(), node.name, node.cpus) for node in nodes], request.node_seconds, request.gpus_per_node
    )
    return tuple(
        NodeFacts.model_validate(answer) if isinstance(answer, dict) else NodeFacts(node=node.name, cpus=node.cpus, problem=str(answer))
        for node, answer in zip(nodes, answers, strict=True)
    )


def pass_files_around(nodes: Sequence[Node], folder: str, seconds: float) -> StorageFacts:
    """Each writes, then each reads what all wrote."""
    names = [f"node-{number}" for number in range(len(nodes))]
    written = on_each(nodes, write_own, [(folder, name) for name in names], ANSWER_SECONDS)
    problems = {node.name: str(found) for node, found in zip(nodes, written, strict=True) if found}
    if problems:
        return StorageFacts(path=folder, problems=problems)
    started = time.monotonic()
    seen = on_each(nodes, wait_for_all, [(folder, names, seconds)] * len(nodes), seconds + ANSWER_SECONDS)
    writers = dict(zip(names, (node.name for node in nodes), strict=True))
    unseen = {
        node.name: tuple(writers[name] for name in found) if isinstance(found, tuple) else tuple(writers.values())
        for node, found in zip(nodes, seen, strict=True)
        if found
    }
    return StorageFacts(path=folder, seconds=round(time.monotonic() - started, 3), unseen=unseen)


def sum_over(nodes: Sequence[Node], request: PreflightRequest) -> AllReduceFacts:
    """One process for each GPU of `nodes`; without GPUs one for each node."""
    from prism_trainer.preflight.all_reduce import Rank, bus_gb_per_s

    per_node = max(1, request.gpus_per_node)
    real = bool(request.gpus_per_node) and not request.on_cpu
    backend = "nccl" if real else "gloo"
    places = [node for node in nodes for _ in range(per_node)]
    options = {"num_gpus": 1 if request.gpus_per_node else 0, "num_cpus": 0}
    made: Any = ray.remote(Rank)
    ranks = [made.options(**options, scheduling_strategy=_on(node)).remote(backend) for node in places]
    facts: dict[str, Any] = {"nodes": tuple(node.name for node in nodes), "ranks": len(places), "backend": backend}
    try:
        address, port = ray.get(ranks[0].meeting_point.remote(places[0].address), timeout=request.node_seconds)
        work = [rank.sum_up.remote(number, len(ranks), address, port, request.all_reduce_seconds) for number, rank in enumerate(ranks)]
        answers = _answers(work, request.all_reduce_seconds + ANSWER_SECONDS, together=True)
    except ray.exceptions.RayError as error:
        return AllReduceFacts(**facts, problem=_brief(error))
    finally:
        for rank in ranks:
            ray.kill(rank)
    problem = _problem_of(answers, places)
    if problem:
        return AllReduceFacts(**facts, problem=problem)
    seconds = max(answer["seconds"] for answer in answers)
    num_bytes = answers[0]["bytes"]
    return AllReduceFacts(**facts, bytes=num_bytes, seconds=seconds, bus_gb_per_s=bus_gb_per_s(num_bytes, len(ranks), seconds))


def on_each(
    nodes: Sequence[Node], work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], seconds: float, gpus: int = 0
) -> list[Any]:
    """What `work` returned on each node, or a sentence where it did not."""
    task: Any = ray.remote(max_calls=1)(work)
    options = {"num_cpus": 0, "num_gpus": gpus, "max_retries": 0}
    given = zip(nodes, arguments, strict=True)
    return _answers([task.options(**options, scheduling_strategy=_on(node)).remote(*args) for node, args in given], seconds)


def _look(request: dict[str, Any], node: str, cpus: int) -> dict[str, Any]:
    from prism_trainer.preflight.machine import look

    return look(PreflightRequest.model_validate(request), node, cpus).to_dict()


def _answers(work: Sequence[Any], seconds: float, together: bool = False) -> list[Any]:
    """In order, a sentence for each that failed or is late. `together`: once one has failed, the others wait for it in vain, and have few
    seconds left."""
    end = time.monotonic() + seconds
    waiting = list(work)
    failed = False
    while waiting and time.monotonic() < end:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
        if together and not failed and any(isinstance(_answer(one), str) and _answer(one) for one in done):
            failed, end = True, min(end, time.monotonic() + ANSWER_SECONDS / 4)
    late = set(waiting)
    return [f"no answer within {seconds:g} s" if one in late else _answer(one) for one in work]


def _answer(done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        return _brief(error)


def _problem_of(answers: Sequence[Any], places: Sequence[Node]) -> str:
    """A rank that says why is worth more than those that waited for it."""
    failed = [(node.name, answer) for node, answer in zip(places, answers, strict=True) if not isinstance(answer, dict)]
    told = [one for one in failed if not str(one[1]).startswith("no answer")] or failed
    return f"on node {told[0][0]}: {told[0][1]}" if told else ""


def _on(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _brief(error: BaseException) -> str:
    """Ray puts the traceback before what was raised."""
    cause = getattr(error, "cause", None) or error
    if "Unschedulable" in type(cause).__name__:
        return "Ray counts fewer GPUs on it than are asked for"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no reason given'}"[:300]
