"""The operator is killed before or after each of its writes, at every single one; another begins, and the end is the same."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from builders import make_run
from fake_cluster import CrashError, FakeApi, Nature, Operator
from prism_trainer.contract.report import FailureClass


def run(**spec):
    return make_run(storage={"pvc": {"claimName": "claim"}}, **spec).stage("sft").stage("rlvr").raw


ROUNDS = 14


@dataclass
class Story:
    """What happens in each round, besides what the operator does. By default all goes well."""

    api: FakeApi = field(default_factory=FakeApi)
    raw = run()
    is_heard = True
    """Whether whatever an attempt says is still to be heard when an operator comes back."""

    def __post_init__(self):
        self.nature = Nature(self.api)
        self.done = set()
        self.api.create("prismruns", self.raw)

    def first(self, what):
        """Whether it is the first time; a story goes on from what happened, not from the number of rounds."""
        return not (what in self.done or self.done.add(what))

    def start_pods(self):
        self.nature.kuberay()
        self.nature.kubelet_starts()
        self.nature.kuberay()
        return self.nature.pods("Running")

    def edit(self, **spec):
        self.api.change("prismruns", "demo", lambda raw: raw["spec"].update(spec))

    def round(self):
        self.nature.everything()


class AStageFailsAtFirst(Story):
    def round(self):
        for pod in self.start_pods():
            if self.first("failure"):
                self.nature.end(pod, "Failed", FailureClass.NODE_LOST)
            else:
                self.nature.succeed(pod)
        self.nature.wind_up()


class SuspendedInMidStage(Story):
    def round(self):
        for pod in self.start_pods():
            if self.first("suspended"):
                self.edit(suspend=True)
            elif not self.api.get("prismruns", "demo")["spec"].get("suspend"):
                self.nature.succeed(pod)
        self.nature.wind_up()
        if "suspended" in self.done and not self.api.all("rayclusters") and self.first("resumed"):
            self.edit(suspend=False)


class StagesShareACluster(Story):
    raw = run(clusterPolicy="Reuse")


class TheSecondStageOfASharedClusterFails(AStageFailsAtFirst):
    raw = run(clusterPolicy="Reuse")

    def first(self, what):
        return bool(self.nature.trained) and super().first(what)


class FinishedAndExpired(Story):
    raw = run(ttlSecondsAfterFinished=60)


class RefusedAndDeletedInMidStage(Story):
    """The spec is broken while a stage runs, and nobody mends it."""

    def round(self):
        if self.start_pods() and self.first("broken"):
            self.edit(seed="wrong")
        elif self.first("deleted"):
            self.api.delete("prismruns", "demo")
        self.nature.wind_up()


class DeletedInMidStage(Story):
    def round(self):
        if self.start_pods() and self.first("deleted"):
            self.api.delete("prismruns", "demo")
        self.nature.wind_up()


class TheClusterIsDeletedByHand(Story):
    is_heard = False

    def round(self):
        for pod in self.start_pods():
            if self.first("deleted"):
                self.api.delete("rayclusters", pod["metadata"]["labels"]["ray.io/cluster"])
                self.api.collect_garbage()
                return
            self.nature.succeed(pod)
        self.nature.wind_up()


class ThePodsAreNotToBeHad(Story):
    """The stage never begins, and is given up after startSeconds."""

    def round(self):
        if not self.api.all("rayclusters") or "waited" in self.done:
            self.nature.everything()
        elif self.first("waited"):
            self.api.now += timedelta(seconds=3700)
        self.nature.wind_up()


STORIES = (
    Story,
    AStageFailsAtFirst,
    SuspendedInMidStage,
    StagesShareACluster,
    TheSecondStageOfASharedClusterFails,
    FinishedAndExpired,
    DeletedInMidStage,
    RefusedAndDeletedInMidStage,
    TheClusterIsDeletedByHand,
    ThePodsAreNotToBeHad,
)


class Once:
    """A fault at one write."""

    def __init__(self, number=0, when=""):
        self.number, self.when, self.count = number, when, 0

    def __call__(self, _, when):
        self.count += when == "before"
        if (self.count, when) == (self.number, self.when):
            self.number = 0
            raise CrashError


def play(story, fault, is_late=False):
    """`is_late`: what was told to go has gone before the next operator comes."""
    operator = Operator(story.api, fault)
    for _ in range(ROUNDS):
        operator.listen_to_all()
        try:
            operator.work()
        except CrashError:
            if is_late:
                story.nature.wind_up()
            operator.restart()
            operator.work()
        if is_over(story.api):
            break
        story.round()
        story.api.now += timedelta(seconds=30)
    return ending(story)


def is_over(api):
    run = api.get("prismruns", "demo")
    if run is None or run["spec"].get("ttlSecondsAfterFinished") is not None:
        return run is None
    return run["status"]["summary"] in ("Succeeded", "Failed") and not api.all("rayclusters") and not api.all("pods")


def ending(story):
    """All but times, and what depends on when a pass looked."""
    left = [key for key in story.api.objects if key[0] != "prismruns"]
    run = story.api.get("prismruns", "demo")
    if run is None:
        return left, None
    status = run["status"]
    stages = [
        (s["state"], s.get("checkpoint", {}).get("digest"), [outcome(a) if story.is_heard else a["number"] for a in s["attempts"]])
        for s in status["stages"]
    ]
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    return left, run["metadata"].get("finalizers"), status["summary"], stages, conditions, story.nature.trained


def outcome(attempt):
    return attempt["number"], attempt["outcome"], attempt.get("failureClass")


def every_fault(story):
    fault = Once()
    undisturbed = play(story(), fault)
    return undisturbed, [(number, when) for number in range(1, fault.count + 1) for when in ("before", "after")]


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_killed_at_any_write_the_run_ends_as_if_nothing_had_happened(story, is_late):
    undisturbed, faults = every_fault(story)
    different = {at: end for at in faults if (end := play(story(), Once(*at), is_late)) != undisturbed}
    assert not different, f"undisturbed: {undisturbed}"


@pytest.mark.parametrize(
    ("story", "summary", "num_writes"),
    [
        (Story, "Succeeded", 8),
        (AStageFailsAtFirst, "Succeeded", 12),
        (SuspendedInMidStage, "Succeeded", 16),
        (TheClusterIsDeletedByHand, "Succeeded", 11),
    ],
)
def test_a_story_undisturbed_ends_well_and_with_few_writes(story, summary, num_writes):
    told = story()
    left, finalizers, ended, *_ = play(told, Once())
    assert (left, finalizers, ended) == ([], ["prism.dev/cleanup"], summary)
    assert len(told.api.writes) <= num_writes, told.api.writes


@pytest.mark.parametrize("story", [DeletedInMidStage, RefusedAndDeletedInMidStage, FinishedAndExpired], ids=lambda story: story.__name__)
def test_a_run_that_is_deleted_is_gone_with_all_it_had(story):
    assert play(story(), Once()) == ([], None)
