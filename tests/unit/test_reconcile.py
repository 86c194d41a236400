"""The story: one pass over a world that only takes notes."""

import asyncio

import pytest

from builders import NOW, OTHER_DIGEST, ROOT, make_run
from prism_operator.errors import BadRunError
from prism_operator.plan import Site
from prism_operator.problems import Problem
from prism_operator.reconcile import reconcile


class NotedWorld:
    """Finds what a scene holds."""

    def __init__(self, scene, problems=()):
        self.scene, self.problems, self.notes, self.status = scene, problems, [], None

    async def survey(self, run):
        if self.problems:
            raise BadRunError(self.problems)
        return Site(root_uri=ROOT, base_dir="/data")

    async def list_children(self, plan):
        return self.scene.children()

    async def stop(self, stop):
        self.notes.append(("stop", stop.stage, stop.number))

    async def delete(self, uri):
        self.notes.append(("delete", uri.removeprefix(f"{ROOT}/checkpoints/")))

    async def start(self, plan, start):
        self.notes.append(("start", start.job.stage, start.job.attempt))

    async def write_status(self, status):
        self.notes.append(("status", status.summary))
        self.status = status


def two():
    return make_run().stage("sft").stage("rlvr")


def notes(run, scene, problems=()):
    world = NotedWorld(scene, problems)
    asyncio.run(reconcile(run.raw, world, NOW))
    return world.notes


def test_a_pass_deletes_then_starts_then_tells():
    scene = two().scene().done("sft").intermediate("sft")
    assert notes(two(), scene) == [("delete", "sft/attempt-1/step-000002"), ("start", "rlvr", 1), ("status", "Running")]


def test_a_pass_stops_what_is_not_wanted_and_starts_nothing_beside_it():
    assert notes(two(), two().scene().live("sft", config_digest=OTHER_DIGEST)) == [
        ("status", "Stopping"),
        ("stop", "sft", 1),
        ("status", "Stopping"),
    ]


def test_a_pass_repeated_on_the_same_world_does_the_same():
    scene = two().scene().done("sft")
    assert notes(two(), scene) == notes(two(), scene)


@pytest.mark.parametrize(
    ("run", "problems"),
    [(make_run(seed="x").stage("sft"), ()), (make_run().stage("sft", data=[]), ()), (two(), (Problem((), "no such machine"),))],
    ids=["schema", "plan", "executor"],
)
def test_a_refused_object_is_told_so_and_nothing_is_done(run, problems):
    assert notes(run, two().scene(), problems) == [("status", "Refused")]


def test_a_status_nobody_understands_does_not_stop_a_run():
    run = two()
    run.raw["status"] = {"conditions": "none"}
    assert notes(run, two().scene())[0] == ("start", "sft", 1)
