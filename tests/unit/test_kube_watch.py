"""The watches of RayClusters and pods, with a real server behind them that ends, refuses, breaks off and goes silent by a script."""

import asyncio
import json

import pytest
from aiohttp import web

from prism_operator.errors import ClusterError
from prism_operator.kube import door as door_module
from prism_operator.kube import watch as watch_module
from prism_operator.kube.controller import Controller
from prism_operator.kube.inventory import RunKey
from prism_operator.kube.watch import child_watches
from prism_operator.settings import Settings
from ray_objects import head, ray_cluster, worker
from scripted_server import HANG_UP, Script, knock, refusal, says

KEY = RunKey("team", "demo")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(watch_module, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(door_module, "TRIES", 1)


def page(*items, version="200", more=""):
    return {"metadata": {"resourceVersion": version, "continue": more}, "items": items}


def events(*told):
    """A watch that tells this and ends."""
    return says("".join(json.dumps({"type": type_, "object": raw}) + "\n" for type_, raw in told))


def error(code):
    return "ERROR", {"kind": "Status", "code": code, "reason": "Expired", "message": "too old"}


def bookmark(version):
    return "BOOKMARK", {"metadata": {"resourceVersion": version}}


async def silence():
    await asyncio.Event().wait()


def follow(answers, until, kind="rayclusters", namespaces=(), known=()):
    """The controller and what was asked, once `until(controller, asked)` holds; `known`: what the inventory had before."""
    script = Script([*answers, silence])

    async def run(door):
        controller = Controller(door, Settings(watch_namespaces=namespaces))
        for raw in known:
            (controller.inventory.put_cluster if raw.get("kind") == "RayCluster" else controller.inventory.put_pod)(raw)
        watch = next(each for each in child_watches(controller) if each.resource == kind)
        task = asyncio.create_task(watch.keep_watching())
        async with asyncio.timeout(10):
            while not until(controller, watch):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return controller, watch

    controller, _ = knock(script, run)
    return controller, [where for _, where, *_ in script.asked]


def listed(_, watch):
    return watch.listed.is_set()


def sees(*uids):
    return lambda controller, _: controller.inventory.uids(KEY) == set(uids)


def versions(asked):
    """Of the watches."""
    return [where.rpartition("resourceVersion=")[2] for where in asked if "watch=1" in where]


def test_a_listing_comes_in_pages_and_the_watch_goes_on_from_its_version():
    pages = [page(ray_cluster(), more="abc"), page(ray_cluster(uid="cluster-2", attempt=2))]
    controller, asked = follow([*pages, events(bookmark("300"))], lambda c, _: c.inventory.uids(KEY) == {"cluster-1", "cluster-2"})
    assert len(controller.queue) == 1
    first = f"/apis/ray.io/v1/rayclusters?labelSelector=prism.dev/run&limit={watch_module.PAGE}"
    assert asked[:2] == [first, f"{first}&continue=abc"]
    assert versions(asked)[:1] in ([], ["200"])


def test_nothing_is_decided_before_everything_is_listed():
    first = follow([page(ray_cluster(), more="abc")], sees("cluster-1"))[0]
    assert first.inventory.uids(KEY), "and the second page has not come"
    follow([page(ray_cluster(), more="abc"), page()], listed)


def test_events_are_told_and_a_watch_that_ends_is_opened_again_where_it_ended():
    told = [
        events(("ADDED", head(version=201))),
        events(("MODIFIED", worker(version=202)), bookmark("300")),
        events(("DELETED", head(version=301))),
    ]
    _, asked = follow([page(), *told], lambda c, _: c.inventory.uids(KEY) == {worker()["metadata"]["uid"]}, kind="pods")
    assert versions(asked)[:3] == ["200", "201", "300"]


@pytest.mark.parametrize("gone", [events(error(410)), refusal(410, "Expired", "too old")], ids=["as an event", "as an answer"])
def test_after_410_everything_is_listed_again_and_a_run_that_lost_something_is_counted_anew(gone):
    answers = [page(ray_cluster()), gone, page(ray_cluster(uid="cluster-2", attempt=2, version=400), version="400")]
    controller, asked = follow(answers, lambda c, _: KEY in c._doubted)
    assert "cluster-2" in controller.inventory.uids(KEY) and sum("limit=" in where for where in asked) == 2


@pytest.mark.parametrize(
    "trouble", [HANG_UP, refusal(503, "ServiceUnavailable", "later"), says('{"type": "ADDED", "obj'), events(error(500))]
)
def test_a_watch_that_breaks_off_goes_on_where_it_was_and_lists_nothing(trouble):
    _, asked = follow([page(), trouble, events(("ADDED", ray_cluster(version=201)))], sees("cluster-1"))
    assert versions(asked)[:2] == ["200", "200"] and sum("limit=" in where for where in asked) == 1


def test_watches_that_end_at_once_are_not_asked_for_without_a_pause(monkeypatch):
    monkeypatch.setattr(watch_module, "LONGEST_PAUSE", 0.1)
    script = Script([page(), says("")])

    async def run(door):
        task = asyncio.create_task(child_watches(Controller(door, Settings()))[0].keep_watching())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    knock(script, run)
    assert 2 <= len(versions([where for _, where, *_ in script.asked])) <= 6


def test_a_silent_watch_is_opened_again(monkeypatch):
    monkeypatch.setattr(door_module, "SILENT_SECONDS", 0.05)

    async def says_nothing():
        await asyncio.sleep(5)

    _, asked = follow([page(), says_nothing, events(("ADDED", ray_cluster(version=201)))], sees("cluster-1"))
    assert versions(asked)[:2] == ["200", "200"]


@pytest.mark.parametrize(
    "trouble", [HANG_UP, refusal(403, "Forbidden", "no"), refusal(500, "InternalError", "no"), refusal(410, "Expired", "slow")]
)
def test_a_listing_that_is_refused_is_asked_for_until_it_comes(trouble):
    follow([trouble, trouble, page(ray_cluster())], sees("cluster-1"))


def test_a_kind_that_is_not_installed_has_no_objects_until_it_is():
    missing = refusal(404, "NotFound", "the server could not find the requested resource")
    follow([missing], listed)
    follow([missing, page(ray_cluster())], sees("cluster-1"))


def test_a_namespace_is_listed_apart_and_says_nothing_of_the_others():
    elsewhere = ray_cluster(uid="elsewhere")
    elsewhere["metadata"]["namespace"] = "other"
    controller, asked = follow([page()], listed, namespaces=("team", "other"), known=[ray_cluster(), elsewhere])
    assert asked[0].startswith("/apis/ray.io/v1/namespaces/team/rayclusters?")
    assert controller._doubted == {KEY}


def test_pods_are_not_missed_in_a_listing_of_clusters():
    controller, _ = follow([page(ray_cluster(version=150))], listed, known=[ray_cluster(), head()])
    assert controller._doubted == set()


def test_what_was_created_while_it_was_listed_is_not_missed():
    """The answer to our own create comes before the listing's."""

    async def run(door):
        controller = Controller(door, Settings())
        watch = child_watches(controller)[0]

        async def pages(*_):
            controller.inventory.put_cluster(ray_cluster())
            yield page()

        controller.door.pages = pages
        await watch._list()
        return controller._doubted

    assert knock(Script([{}]), run) == set()


def test_a_line_that_is_no_event_is_a_watch_that_broke_off():
    async def run(door):
        return [event async for event in door.watch("/api/v1/pods", "a=b", "1")]

    with pytest.raises(ClusterError, match="WATCH /api/v1/pods: it broke off"):
        knock(Script([lambda: web.Response(text="<html>")]), run)
