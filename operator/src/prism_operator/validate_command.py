"""`prism validate`: the problems of files on this machine or for a cluster, and what an API server adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from prism_operator.errors import PrismError
from prism_operator.kubectl.place import Place
from prism_operator.validate import Survey, Validated, check_file, machine_survey

EXECUTORS = ("local", "cluster", "any")


class UnknownExecutorError(PrismError):
    """Asked for one there is not."""

    exit_code = 2


class InvalidFilesError(PrismError):
    """Their problems are printed already."""


def validate_files(files: Sequence[Path], executor: str, server: Place | None) -> int:
    """InvalidFilesError counts the problems. With a server, files without any of ours are shown to it."""
    if executor not in EXECUTORS:
        raise UnknownExecutorError(f"--for is '{executor}'; expected local, cluster or any")
    if server is not None and executor == "local":
        raise UnknownExecutorError("--server asks a cluster, and --for is 'local'; leave one of them out")
    survey = _survey(executor)
    found = [check_file(file, survey) for file in files]
    if server is not None:
        found = _ask(found, server)
    for validated in found:
        _print(validated, server)
    num_problems = sum(len(validated.problems) for validated in found)
    if num_problems:
        raise InvalidFilesError(f"{num_problems} {'problem' if num_problems == 1 else 'problems'}")
    return 0


def _survey(executor: str) -> Survey | None:
    if executor == "cluster":
        from prism_operator.kube.survey import cluster_problems

        return cluster_problems
    from prism_operator.local.machine import this_machine

    return machine_survey(this_machine()) if executor == "local" else None


def _ask(found: Sequence[Validated], place: Place) -> list[Validated]:
    """A file with problems of its own is not shown: the answer would be the same problems in other words."""
    if all(validated.problems for validated in found):
        return list(found)
    from prism_operator.kubectl.door import Door
    from prism_operator.kubectl.server_check import server_problems

    door = Door.open(place)
    return [each if each.problems else each.and_also(server_problems(each.raw, door, place.namespace)) for each in found]


def _print(validated: Validated, server: Place | None) -> None:
    for line in validated.lines():
        typer.echo(line)
    if not validated.problems and validated.run is not None:
        stages = ", ".join(stage.name for stage in validated.run.spec.stages)
        typer.echo(f"{validated.file}: valid{', also for the API server' if server else ''}; stages {stages}")
