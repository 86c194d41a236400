"""All ranks of a stage: where they run, and what their end means.

With RAY_ADDRESS set there is a cluster: an agent on each node with GPUs, which Ray gives that node's GPUs, started by this process and gone
with it. Without, the GPUs of this machine; without any, one plain process. Where the stage is told to do without, Ray's GPUs count ranks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from prism_trainer.contract.report import FailureClass
from prism_trainer.engines.devices import told_to_use_cpu
from prism_trainer.engines.ranks.agent import Agent, Ended
from prism_trainer.engines.ranks.process import Verdict
from prism_trainer.engines.ray_cluster import join
from prism_trainer.errors import GangError, PrismError
from prism_trainer.failures import OF_A_RANK

LOOK_SECONDS = 0.2
SETTLE_SECONDS = 2.0
"""After the first failure: the rank at fault may be slower with its last word than the peers it left alone."""
READY_SECONDS = 300.0


class RankError(PrismError):
    """One of the ranks failed, and with it all."""

    def __init__(self, sentence: str, failure_class: FailureClass) -> None:
        super().__init__(sentence)
        self.failure_class = failure_class


@dataclass(frozen=True)
class Machine:
    """Where ranks run. `node` is Ray's id, none for this machine without Ray; `num_gpus` 0 computes on the CPU."""

    num_ranks: int
    num_gpus: int
    node: str | None = None


@dataclass(frozen=True)
class Machines:
    """Of one stage; the first has rank 0."""

    all: tuple[Machine, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def world_size(self) -> int:
        return sum(machine.num_ranks for machine in self.all)

    def one_process(self, environment: dict[str, str]) -> Machines:
        """Without a GPU, on the first of them."""
        return Machines((Machine(1, 0, self.all[0].node),), {**self.environment, **environment})

    def told(self, environment: dict[str, str]) -> Machines:
        """The same, whose ranks have these variables as well."""
        return replace(self, environment={**self.environment, **environment})

    @property
    def have_gpus(self) -> bool:
        return any(machine.num_gpus for machine in self.all)


def find_machines() -> Machines:
    """What the stage was given."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        return Machines(tuple(_ray_nodes(address)))
    import torch

    count = 0 if told_to_use_cpu() else torch.cuda.device_count()
    return plain_processes(count, num_gpus=count) if count else plain_processes(1)


def plain_processes(count: int, num_gpus: int = 0) -> Machines:
    """On this machine, without Ray."""
    return Machines((Machine(count, num_gpus),))


def run_ranks(module: str, folder: Path, machines: Machines, watch: Callable[[], None]) -> None:
    """`module.main(folder)` on every rank, to the end of all. `watch` is called all the while; what it raises ends them.

    The first rank that fails ends the others at once, and what is raised is that rank's own sentence.
    """
    with _agents(machines) as agents:
        master = agents[0].address()
        for agent in agents:
            agent.start(module, str(folder), master)
        while True:
            ended = [one for agent in agents for one in agent.look()]
            if any(one.exit_code for one in ended):
                time.sleep(SETTLE_SECONDS)
                raise _failure([one for agent in agents for one in agent.look()], machines.world_size)
            watch()
            if len(ended) == machines.world_size:
                return
            time.sleep(LOOK_SECONDS)


def _failure(ended: Sequence[Ended], world_size: int) -> PrismError:
    """Our own sentences and want of memory first, then by time: peers of a dead rank fail a moment later, on the connection it left.

    NCCL's watch ends such peers by SIGABRT, so that one without a word is not always the cause.
    """
    failed = [one for one in ended if one.exit_code]
    told = {one.rank: Verdict.model_validate_json(one.verdict) for one in failed if one.verdict}
    killed = next((one for one in failed if one.rank not in told), None)
    of = f" (rank {{}} of {world_size})" if world_size > 1 else ""
    ours = [rank for rank, verdict in told.items() if verdict.failure_class is not None or verdict.out_of_memory]
    if killed is not None and not ours:
        reason = f"ended by signal {-killed.exit_code}" if killed.exit_code < 0 else f"ended with exit code {killed.exit_code}"
        sentence = f"a training process{of.format(killed.rank)} {reason} and left no word; the log has its last lines"
        return RankError(sentence, FailureClass.NODE_LOST if killed.exit_code < 0 else FailureClass.USER_ERROR)
    rank = min(ours or told, key=lambda one: told[one].at)
    verdict = told[rank]
    if verdict.out_of_memory:
        return RankError(f"out of memory{of.format(rank)}; {OF_A_RANK}", FailureClass.OUT_OF_MEMORY)
    if verdict.failure_class is not None:
        return RankError(verdict.message + of.format(rank), verdict.failure_class)
    return RankError(f"{verdict.message}{of.format(rank)} (the traceback is in the attempt's log)", FailureClass.USER_ERROR)


class _AnyAgent(Protocol):
    def address(self) -> tuple[str, int]: ...

    def start(self, module: str, folder: str, master: tuple[str, int]) -> None: ...

    def look(self) -> list[Ended]: ...

    def kill(self) -> None: ...


@contextmanager
def _agents(machines: Machines) -> Iterator[list[_AnyAgent]]:
    agents: list[_AnyAgent] = []
    first = 0
    try:
        for machine in machines.all:
            environment = machines.environment if machine.num_gpus else {"DS_ACCELERATOR": "cpu", **machines.environment}
            given = (first, machine.num_ranks, machines.world_size, environment)
            agents.append(Agent(*given) if machine.node is None else _RayAgent(machine, given))
            first += machine.num_ranks
        yield agents
    finally:
        for agent in agents:
            with contextlib.suppress(GangError):
                agent.kill()


class _RayAgent:
    """An agent on another node. A node that is lost takes its actor along, and every call says so."""

    def __init__(self, machine: Machine, given: tuple[Any, ...]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._node = machine.node
        place = NodeAffinitySchedulingStrategy(machine.node, soft=False)
        self._actor = ray.remote(Agent).options(num_gpus=machine.num_gpus, num_cpus=0, scheduling_strategy=place).remote(*given)
        self._call("ready")

    def address(self) -> tuple[str, int]:
        host, port = self._call("address")
        return host, port

    def start(self, module: str, folder: str, master: tuple[str, int]) -> None:
        self._call("start", module, folder, master)

    def look(self) -> list[Ended]:
        return list(self._call("look"))

    def kill(self) -> None:
        import ray

        self._call("kill")
        ray.kill(self._actor)

    def _call(self, method: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=READY_SECONDS)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            raise GangError(f"Ray node {self._node} does not answer any more ({type(error).__name__}); the attempt ends") from error


def _ray_nodes(address: str) -> Iterator[Machine]:
    """Nodes with GPUs, this one first where it has any, so that rank 0's messages stay on one machine."""
    import ray

    if not ray.is_initialized():
        join(address, logging_level="ERROR")
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]}
    counts = {node: count for node, count in sorted(nodes.items(), key=lambda one: one[0] != here) if count}
    if not counts:
        yield Machine(1, 0, here)
    for node, count in counts.items():
        yield Machine(count, 0 if told_to_use_cpu() else count, node)
