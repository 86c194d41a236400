"""The door, with a real server behind it that refuses, stalls and hangs up by a script."""

import asyncio

import pytest
from aiohttp import ClientSession, web

from builders import heartbeat
from fake_cluster import START
from prism_operator.errors import ClusterError
from prism_operator.kube import door as door_module
from prism_operator.kube import progress
from prism_operator.kube.door import CLUSTERS, RUNS, ApiError
from scripted_server import HANG_UP, Script, knock, refusal, says

RUN = {
    "apiVersion": "prism.dev/v1alpha1",
    "kind": "PrismRun",
    "metadata": {"name": "demo", "namespace": "team", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}},
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """The waits are told, and not waited."""
    waited, real = [], asyncio.sleep

    async def sleep(seconds):
        if seconds:
            waited.append(seconds)
        await real(0)

    monkeypatch.setattr(door_module.asyncio, "sleep", sleep)
    return waited


def test_a_refusal_carries_the_api_servers_sentence_and_what_was_asked():
    script = Script([refusal(403, "Forbidden", "exceeded quota: q")])
    with pytest.raises(ApiError) as error:
        knock(script, lambda door: door.create(CLUSTERS, "team", "rayclusters", {"metadata": {"name": "c"}}))
    assert (error.value.status, error.value.reason, error.value.message) == (403, "Forbidden", "exceeded quota: q")
    assert "POST /apis/ray.io/v1/namespaces/team/rayclusters: exceeded quota: q" in str(error.value)


@pytest.mark.parametrize(("after", "waits"), [("7", [7.0]), ("9999", [30.0]), ("soon", [0.5])])
def test_a_busy_server_is_asked_again_when_it_says(_no_waiting, after, waits):
    script = Script([refusal(429, "TooManyRequests", "slow down", **{"Retry-After": after}), {"metadata": {"name": "c"}}])
    assert knock(script, lambda door: door.create(CLUSTERS, "team", "rayclusters", {"a": 1}))["metadata"] == {"name": "c"}
    assert len(script.asked) == 2 and _no_waiting == waits


def test_a_server_that_stays_busy_is_given_up():
    script = Script([refusal(503, "ServiceUnavailable", "later")])
    with pytest.raises(ApiError, match="later"):
        knock(script, lambda door: door.get(RUNS, "team", "prismruns", "demo"))
    assert len(script.asked) == door_module.TRIES


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 500])
def test_other_refusals_are_not_repeated(status):
    script = Script([refusal(status, "Reason", "no")])
    with pytest.raises(ApiError):
        knock(script, lambda door: door.patch(RUNS, "team", "prismruns", "demo", {}))
    assert len(script.asked) == 1


def test_a_create_whose_answer_is_lost_is_not_repeated():
    script = Script([HANG_UP])
    with pytest.raises(ClusterError, match="cannot be reached"):
        knock(script, lambda door: door.create(CLUSTERS, "team", "rayclusters", {"a": 1}))
    assert len(script.asked) == 1


def test_a_write_onto_a_version_is_repeated_after_a_lost_answer():
    script = Script([HANG_UP, {"metadata": {"resourceVersion": "8"}}])
    assert knock(script, lambda door: door.apply_status(RUN, {"summary": "Running"}))["metadata"]["resourceVersion"] == "8"
    assert len(script.asked) == 2


def test_a_status_is_applied_whole_onto_its_version():
    script = Script([{}])
    knock(script, lambda door: door.apply_status(RUN, {"summary": "Running"}))
    method, where, kind, body = script.asked[0]
    assert (method, kind) == ("PATCH", "application/apply-patch+yaml")
    assert where == "/apis/prism.dev/v1alpha1/namespaces/team/prismruns/demo/status?fieldManager=prism-operator&force=true"
    assert body["metadata"] == {"name": "demo", "namespace": "team", "uid": "u", "resourceVersion": "7"} and set(body) == {
        "apiVersion",
        "kind",
        "metadata",
        "status",
    }


def test_what_does_not_exist_is_none_and_deleting_it_is_no_error():
    script = Script([refusal(404, "NotFound", "no")])
    assert knock(script, lambda door: door.get(RUNS, "team", "prismruns", "demo")) is None
    assert knock(script, lambda door: door.delete(CLUSTERS, "team", "rayclusters", "c")) is None


def test_another_object_of_the_name_is_not_deleted():
    script = Script([refusal(409, "Conflict", "the UID in the precondition does not match")])
    assert knock(script, lambda door: door.delete(CLUSTERS, "team", "rayclusters", "c", uid="u", grace_seconds=0)) is None
    assert script.asked[0][3] == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 0,
    }


def test_names_are_quoted():
    script = Script([{}])
    knock(script, lambda door: door.get(RUNS, "team", "prismruns", "a b?c"))
    assert script.asked[0][1].endswith("/prismruns/a%20b%3Fc")


@pytest.mark.parametrize(("namespaces", "num"), [((), 1), (("a", "b"), 2)])
def test_metadata_is_listed_for_all_namespaces_or_each(namespaces, num):
    item = {"metadata": {"namespace": "team", "name": "demo", "resourceVersion": "42"}}
    script = Script([{"items": [item]}])
    assert knock(script, lambda door: door.metadata(RUNS, "prismruns", namespaces, "app=a")) == [item["metadata"]] * num
    assert len(script.asked) == num and all(
        asked[1].endswith("/prismruns?resourceVersion=0&labelSelector=app%3Da") for asked in script.asked
    )


def test_no_more_requests_are_in_flight_than_allowed():
    async def slow():
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.02)
        return web.json_response({})

    script = Script([slow])
    knock(script, lambda door: asyncio.gather(*(door.get(RUNS, "team", "prismruns", str(i)) for i in range(12))), max_writes=3)
    assert len(script.asked) == 12 and script.most_at_once == 3


# -- progress ----------------------------------------------------------------------------------------------------------------------------

HEARTBEAT = heartbeat("sft", START).model_dump_json()


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (says(HEARTBEAT), 1),
        (says(HEARTBEAT, status=500), None),
        (says("{"), None),
        (says("[" * 5000), None),
        (says(HEARTBEAT.replace('"step":1', '"step":-1')), None),
        (says(HEARTBEAT + " " * progress.MAX_BODY), None),
        (says("", status=302, headers={"Location": "/elsewhere"}), None),
        (HANG_UP, None),
    ],
    ids=["well", "ill", "half", "brackets", "nonsense", "too much", "elsewhere", "hung up"],
)
def test_a_pod_may_answer_whatever_it_likes(answer, step, monkeypatch):
    async def ask(door):
        port = int(door._client.configuration.host.rpartition(":")[2])
        monkeypatch.setattr(progress, "PROGRESS_PORT", port)
        async with ClientSession(timeout=progress.TIMEOUT) as session:
            return await progress._fetch(session, "127.0.0.1")

    script = Script([answer])
    told = knock(script, ask)
    assert (told.step if told else None) == step and {where for _, where, *_ in script.asked} == {"/progress"}
    assert told is None or told.updated_at != heartbeat("sft", START).updated_at, "told when it was heard"


def test_a_pod_that_cannot_be_reached_is_silent():
    async def ask():
        async with ClientSession(timeout=progress.TIMEOUT) as session:
            return await progress._fetch(session, "::1")

    assert asyncio.run(ask()) is None
