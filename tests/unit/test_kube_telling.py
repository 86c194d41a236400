"""Events and numbers: what changed, told once, and nothing left behind."""

import asyncio

import prometheus_client
import pytest

from builders import NOW, heartbeat
from prism_operator.api import AttemptStatus, Condition, PrismRunStatus, StageStatus
from prism_operator.errors import ClusterError
from prism_operator.kube import metrics, telling
from prism_operator.kube.comparison import compare_runs
from prism_operator.kube.controller import Controller
from prism_operator.kube.health import BEHIND_SECONDS, Health
from prism_operator.kube.inventory import RunKey
from prism_operator.kube.progress import is_news
from prism_operator.kube.transitions import ended_attempts, events_between
from prism_operator.settings import Settings
from scripted_server import Script, knock, refusal

KEY = RunKey("team", "demo")
RAW = {
    "apiVersion": "prism.dev/v1alpha1",
    "kind": "PrismRun",
    "metadata": {"name": "demo", "namespace": "team", "uid": "u", "resourceVersion": "7"},
}


def condition(type_, status="True"):
    return Condition(type=type_, status=status, reason="R", last_transition_time="2026-01-01T12:00:00Z")


def status(*conditions, attempts=(), summary="Running", message="m", stage="sft", **fields):
    stages = (StageStatus(name=stage, kind="sft", state="Running", config_digest="d", attempts=tuple(attempts), **fields),)
    return PrismRunStatus(summary=summary, reason="Why", message=message, stage=stage, conditions=conditions, stages=stages)


def attempt(number=1, outcome="Running", failure_class=None, **fields):
    return AttemptStatus(number=number, outcome=outcome, failure_class=failure_class, message="it broke", **fields)


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (None, status(), []),
        (None, status(attempts=[attempt()]), []),
        (status(attempts=[attempt()]), status(attempts=[attempt(1, "Succeeded")]), []),
        (status(attempts=[attempt()]), status(attempts=[attempt(1, "Failed", "NodeLost")]), ["NodeLost"]),
        (status(attempts=[attempt()]), status(attempts=[attempt(1, "Failed", "UserError")]), ["AttemptFailed"]),
        (status(attempts=[attempt()]), status(attempts=[attempt(1, "Failed", "Hang")]), ["HangDetected"]),
        (status(attempts=[attempt()]), status(attempts=[attempt(1, "Failed", "CheckpointCorrupt")]), ["CheckpointRejected"]),
        (status(attempts=[attempt()]), status(attempts=[attempt(1, "Stopped", "Preempted")]), []),
        (status(attempts=[attempt(1, "Failed", "Hang")]), status(attempts=[attempt(1, "Failed", "Hang")]), []),
        (status(), status(condition("Suspended")), ["Suspended"]),
        (status(condition("Suspended")), status(condition("Suspended")), []),
        (status(condition("Suspended")), status(condition("Suspended", "False")), ["Resumed"]),
        (status(condition("Suspended")), status(condition("Finished"), summary="Succeeded"), ["RunSucceeded"]),
        (status(), status(condition("Finished"), summary="Failed"), ["RunFailed"]),
        (status(condition("Finished"), summary="Failed"), status(condition("Finished"), summary="Failed"), []),
        (status(), status(summary="Refused"), ["Why"]),
        (status(summary="Refused"), status(summary="Refused"), []),
        (status(summary="Refused"), status(summary="Refused", message="another"), ["Why"]),
    ],
)
def test_what_is_out_of_the_ordinary_is_told_once(before, after, reasons):
    assert [event.reason for event in events_between(before, after)] == reasons


def test_an_attempt_ends_once():
    ended = status(attempts=[attempt(1, "Failed", "Hang"), attempt(2)])
    assert [e.attempt.number for e in ended_attempts(status(attempts=[attempt()]), ended)] == [1]
    assert list(ended_attempts(ended, ended)) == []


class NotedDoor:
    def __init__(self, refuses=False):
        self.bodies, self.refuses = [], refuses

    async def create(self, api, namespace, resource, body):
        self.bodies.append(body)
        if self.refuses:
            raise ClusterError("no")
        return body


def tell(door, after, before=None):
    asyncio.run(telling.tell(door, RAW, before, after, NOW))


def test_the_same_pass_makes_the_same_event_and_another_pass_another():
    door, failed = NotedDoor(), status(attempts=[attempt(1, "Failed", "Hang")])
    tell(door, failed)
    tell(door, failed)
    tell(door, status(summary="Refused"))
    names = [body["metadata"]["name"] for body in door.bodies]
    assert names[0] == names[1] != names[2] and all(len(name) <= 253 for name in names)
    assert door.bodies[0]["involvedObject"] == {
        "apiVersion": "prism.dev/v1alpha1",
        "kind": "PrismRun",
        "name": "demo",
        "namespace": "team",
        "uid": "u",
        "resourceVersion": "7",
    }


def test_an_event_that_is_refused_stops_nobody_and_a_long_message_fits():
    door = NotedDoor(refuses=True)
    tell(door, status(summary="Refused", message="x" * 5000))
    assert len(door.bodies[0]["message"]) == 1024


def series():
    """Every series of this run."""
    return [
        (sample.name, tuple(sample.labels.values()))
        for family in prometheus_client.REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("namespace") == KEY.namespace and sample.labels.get("name") == KEY.name
    ]


@pytest.fixture(autouse=True)
def _no_series():
    yield
    metrics.RUNS.drop(KEY)


def test_the_numbers_of_a_run_are_those_of_its_last_pass():
    first = status(condition("Finished", "False"), attempts=[attempt(1)], total_steps=10, step=5)
    last = status(condition("Finished"), attempts=[attempt(2)], total_steps=10, step=10, summary="Succeeded")
    telling.measure(KEY, None, first, NOW)
    telling.measure(KEY, first, last, NOW)
    found = series()
    assert len(found) == len(set(found)) == 4
    assert ("prism_run_condition", ("team", "demo", "Finished", "True")) in found


def test_a_stage_that_is_taken_out_of_the_spec_leaves_no_series():
    first = status(attempts=[attempt(1)], total_steps=10, stage="sft")
    telling.measure(KEY, None, first, NOW)
    telling.measure(KEY, first, status(stage="rlvr"), NOW)
    assert all("sft" not in labels for _, labels in series())


RUN_TWO = {"namespace": "team", "name": "demo-2", "stage": "sft", "summary": "Running"}


def test_a_run_that_is_gone_leaves_no_series():
    last = status(condition("Finished"), condition("Suspended", "False"), attempts=[attempt(1)], total_steps=3)
    telling.measure(KEY, None, last, NOW)
    telling.measure(RunKey("team", "demo-2"), None, last, NOW)
    assert series()
    metrics.RUNS.drop(KEY)
    assert series() == []
    assert prometheus_client.REGISTRY.get_sample_value("prism_run_info", RUN_TWO) == 1
    metrics.RUNS.drop(RunKey("team", "demo-2"))


def test_an_end_is_counted_once():
    def count():
        return metrics.ATTEMPTS.labels("sft", "Hang")._value.get()

    before, ended = count(), status(attempts=[attempt(1, "Failed", "Hang", gpu_seconds=5.0)])
    telling.measure(KEY, status(attempts=[attempt(1)]), ended, NOW)
    telling.measure(KEY, ended, ended, NOW)
    assert count() == before + 1


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({}, False),
        ({"step": 100}, True),
        ({"step": 101}, True),
        ({"step": 99 + 1}, True),
        ({"step": 98}, True),
        ({"phase": "saving"}, True),
        ({"total_steps": 50_000}, True),
        ({"attempt": 2}, True),
        ({"resume_from": "elsewhere"}, True),
        ({"updated_at": "later", "eta_seconds": 3.0, "metrics": {"loss": 1.0}}, False),
    ],
)
def test_progress_is_news_by_the_percent(change, news):
    before = heartbeat("sft", NOW, step=99)
    before = before.model_copy(update={"total_steps": 100})
    assert is_news(before, before.model_copy(update=change)) is news


def test_of_many_small_steps_only_whole_percents_are_news():
    before = heartbeat("sft", NOW, step=0).model_copy(update={"total_steps": 1000})
    assert [step for step in range(12) if is_news(before, before.model_copy(update={"step": step}))] == [10, 11]


def test_steps_of_an_unknown_number_are_news():
    before = heartbeat("sft", NOW, step=0).model_copy(update={"total_steps": 0})
    assert is_news(before, before.model_copy(update={"step": 1}))


# -- health ------------------------------------------------------------------------------------------------------------------------------


def health():
    return Health(ready=asyncio.Event())


def complaints(*comparisons):
    """Of comparisons a minute apart: what the API server has, and what is known here."""
    checked = health()
    for minute, (listed, known) in enumerate(comparisons):
        checked.compare(
            {RunKey("team", name): v for name, v in listed.items()},
            lambda key, known=known: known.get(key.name, -1),
            minute * BEHIND_SECONDS,
        )
    return checked.complaint()


@pytest.mark.parametrize(
    ("comparisons", "deaf"),
    [
        ([({"a": 5}, {"a": 5})], False),
        ([({"a": 5}, {"a": 9})], False),
        ([({"a": 5}, {"a": 4})], False),
        ([({"a": 5}, {"a": 4}), ({"a": 5}, {"a": 5})], False),
        ([({"a": 5}, {"a": 4}), ({"a": 5}, {"a": 4})], True),
        ([({"a": 5}, {"a": 4}), ({"a": 9}, {"a": 4})], True),
        ([({"a": 5}, {"a": 4}), ({"a": 9}, {"a": 7})], False),
        ([({"a": 5}, {"a": 4}), ({"a": 5, "b": 3}, {"a": 5, "b": 1})], False),
        ([({"a": 5}, {}), ({"a": 5}, {})], True),
        ([({"a": 5}, {}), ({}, {})], False),
        ([({"a": 5}, {"a": 4}), ({"a": 5}, {"a": 4}), ({"a": 5}, {"a": 5})], False),
    ],
    ids=[
        "equal",
        "ahead",
        "behind once",
        "caught up",
        "deaf",
        "deaf, and more comes",
        "busy",
        "another",
        "never heard of",
        "gone",
        "healed",
    ],
)
def test_a_watch_is_dead_when_the_same_version_is_missing_twice(comparisons, deaf):
    assert bool(complaints(*comparisons)) is deaf


def test_a_part_that_stopped_is_named():
    checked = health()
    checked.stopped = "the poller"
    assert "the poller" in checked.complaint()


# -- the comparison ----------------------------------------------------------------------------------------------------------------------


def metadata_of(*names):
    return {"items": [{"metadata": {"namespace": "team", "name": name, "resourceVersion": "7", "uid": f"uid-{name}"}} for name in names]}


def compare(answers, *known):
    """The controller and its health after one comparison of runs; `known` are those the watch told of, at version 7."""
    checked = health()

    async def do(door):
        controller = Controller(door, Settings())
        for raw in metadata_of(*known)["items"]:
            controller.inventory.put_run({**raw, "spec": {}})
        await compare_runs(controller, checked, 0.0)
        return controller

    return knock(Script(answers), do), checked


def test_a_run_whose_end_no_watch_told_is_forgotten():
    controller, _ = compare([metadata_of("stays"), refusal(404, "NotFound", "no")], "stays", "went")
    assert controller.inventory.runs() == [("team", "stays")] and len(controller.queue) == 1


def test_a_run_that_the_listing_lacks_and_that_is_there_is_kept():
    """It came while the cache of the API server was a moment behind."""
    controller, _ = compare([metadata_of(), metadata_of("new")["items"][0]], "new")
    assert controller.inventory.runs() == [("team", "new")] and not len(controller.queue)


def test_a_run_that_no_watch_told_of_is_what_the_watch_is_behind_with():
    _, checked = compare([metadata_of("known", "unknown")], "known")
    assert set(checked.behind) == {("team", "unknown")}
