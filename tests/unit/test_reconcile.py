"""The story: one pass over a world that only takes notes."""

import asyncio

import pytest

from builders import NOW, OTHER_DIGEST, ROOT, at, make_run
from prism_operator.errors import BadRunError, StartRefusedError
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

    async def release(self, ended):
        self.notes.append(("release", ended.stage, ended.number))

    async def let_go(self):
        self.notes.append(("let go",))

    async def abandon(self):
        self.notes.append(("abandon",))

    async def expire(self):
        self.notes.append(("expire",))

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
    assert notes(run, two().scene(), problems) == [("status", "Refused"), ("abandon",)]


def test_what_an_attempt_told_is_written_down_before_its_cluster_goes():
    scene = two().scene().attempt("sft", failed="NodeLost", remains=True, cluster="demo-sft-a1")
    assert notes(two(), scene) == [("status", "Stopping"), ("release", "sft", 1)]


def test_an_object_that_is_being_deleted_is_let_go_when_nothing_of_it_is_left():
    assert notes(two(), two().scene(deleted=True)) == [("status", "Stopped"), ("let go",)]
    assert ("let go",) not in notes(two(), two().scene(deleted=True).live("sft"))
    assert ("let go",) not in notes(two(), two().scene(deleted=True).attempt("sft", remains=True))


def test_an_attempt_that_cannot_be_created_is_told_so_and_tried_again():
    class Refusing(NotedWorld):
        async def start(self, plan, start):
            raise StartRefusedError("exceeded quota.")

    world = Refusing(two().scene())
    done = asyncio.run(reconcile(two().raw, world, NOW))
    assert (done.status.summary, done.status.reason, done.decision.wake_at) == ("Pending", "StartRefused", at(15))
    assert "exceeded quota" in done.status.condition("ClusterReady").message
    assert "exceeded quota. It is tried again." in done.status.message and world.status == done.status


def test_a_status_nobody_understands_does_not_stop_a_run():
    run = two()
    run.raw["status"] = {"conditions": "none"}
    assert notes(run, two().scene())[0] == ("start", "sft", 1)
