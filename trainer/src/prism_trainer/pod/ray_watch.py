"""`python -m prism_trainer.pod.ray_watch ADDRESS`: a line for each Ray worker or node that dies of itself, until it is ended.

A line is a `Finding` as JSON. A trainer that waits for an answer of a dead rank can wait for long: verl's loop asks its workers one after
the other, and NCCL waits for half an hour. Actors that somebody ended, or that ended with their owner, are nobody's business. Read from
Ray's own table of actors, which needs no dashboard.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from prism_trainer.contract.preflight import Finding
from prism_trainer.contract.report import FailureClass
from prism_trainer.failures import lost_worker
from prism_trainer.pod.ray_join import join

LOOK_SECONDS = 2.0
DIED_OF_ITSELF = ("WORKER_DIED", "NODE_DIED")
EXITS_ON_PURPOSE = ("INTENDED_USER_EXIT", "INTENDED_SYSTEM_EXIT")


def main(arguments: list[str]) -> None:
    join(arguments[0])
    table: Any = importlib.import_module("ray._private.state").state
    known = set(table.actor_table(None, None, "DEAD"))
    while True:
        for id_, actor in table.actor_table(None, None, "DEAD").items():
            if id_ not in known:
                known.add(id_)
                finding = finding_of(actor)
                if finding is not None:
                    print(finding.model_dump_json(), flush=True)
        time.sleep(LOOK_SECONDS)


def finding_of(actor: dict[str, Any]) -> Finding | None:
    """None for an actor that was ended on purpose."""
    cause = actor["DeathCause"]
    if cause.HasField("oom_context"):
        return Finding(failure_class=FailureClass.OUT_OF_MEMORY, sentence=_with_name(actor, cause.oom_context.error_message))
    if not cause.HasField("actor_died_error_context"):
        return None
    died = cause.actor_died_error_context
    reason = died.DESCRIPTOR.enum_types_by_name["Reason"].values_by_number[died.reason].name
    if reason not in DIED_OF_ITSELF or any(word in died.error_message for word in EXITS_ON_PURPOSE):
        return None
    memory = "NODE_OUT_OF_MEMORY" in died.error_message
    return Finding(
        failure_class=FailureClass.OUT_OF_MEMORY if memory else FailureClass.NODE_LOST, sentence=_with_name(actor, died.error_message)
    )


def _with_name(actor: dict[str, Any], message: str) -> str:
    who = f"class_name: {actor['ActorClassName']}\nip: {actor['Address']['IPAddress']}\npid: {actor['Pid']}\n"
    return lost_worker(f"{who}{message}")


if __name__ == "__main__":
    main(sys.argv[1:])
