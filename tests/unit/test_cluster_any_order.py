"""Whatever happens to a cluster, in any order, with one operator or two: the laws of a run hold, and when the faults stop, it ends.

The operators are the real ones, on an API server in memory. Each advances by one request at a time. In between events come late, twice or
never, one kind before another; operators are killed before a write or before its answer; stages fail; users edit, suspend and delete.
"""

import itertools
import json
import logging
from datetime import timedelta

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builders import make_run
from fake_cluster import WATCHED, CrashError, FakeApi, Nature, Operator
from prism_operator.api import PrismRunStatus
from prism_operator.names import ATTEMPT_LABEL, STAGE_LABEL
from prism_operator.timestamps import parse_time
from prism_trainer.contract.report import FailureClass

PATIENT = {"nodeLost": 20, "headLost": 20, "preempted": 20}
MAX_STATUS_BYTES = 100_000
NUM_ROUNDS = 60


class Bugs(logging.Handler):
    """What an operator's pass did not expect."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.found = []

    def emit(self, record):
        self.found.append(record.getMessage() + str(record.exc_info))


def run(**spec):
    return make_run(storage={"pvc": {"claimName": "claim"}}, retries=PATIENT, **spec).stage("sft").stage("rlvr").raw


class Cluster(RuleBasedStateMachine):
    raw = run()

    def __init__(self):
        super().__init__()
        self.broken = []
        self.bugs = Bugs()
        logging.getLogger("prism_operator.kube.controller").addHandler(self.bugs)
        self.api = FakeApi(on_create=self.law(self.check_creation), on_status=self.law(self.check_status))
        self.nature = Nature(self.api)
        self.api.create("prismruns", self.raw)
        self.killed_at = None
        self.operators = [Operator(self.api, self.fault)]
        self.run_of = {}

    # -- operators -------------------------------------------------------------------------------------------------------------------

    @rule(index=st.integers(0, 1), turns=st.integers(1, 12))
    def an_operator_works(self, index, turns):
        operator = self.operators[index % len(self.operators)]
        try:
            for _ in range(turns):
                operator.turn()
        except CrashError:
            operator.restart()

    @rule(index=st.integers(0, 1), resource=st.sampled_from(WATCHED), count=st.integers(1, 5), again=st.booleans())
    def an_operator_hears(self, index, resource, count, again):
        self.operators[index % len(self.operators)].listen(resource, count, again)

    @rule()
    def all_is_heard_and_done(self):
        for operator in self.operators:
            operator.listen_to_all()
            try:
                operator.work()
            except CrashError:
                operator.restart()

    @rule(index=st.integers(0, 1), resource=st.sampled_from(WATCHED[:2]))
    def an_event_never_comes(self, index, resource):
        self.operators[index % len(self.operators)].miss(resource)

    @rule(index=st.integers(0, 1))
    def an_operator_compares(self, index):
        self.operators[index % len(self.operators)].compare()

    @rule(goes=st.lists(st.booleans(), min_size=6, max_size=6))
    def a_round_in_which_some_do_their_part(self, goes):
        acts = [
            self.all_is_heard_and_done,
            self.nature.kuberay,
            self.nature.kubelet_starts,
            self.nature.kuberay,
            self.all_is_heard_and_done,
            self.a_stage_succeeds,
        ]
        for act in itertools.compress(acts, goes):
            act()

    @rule(writes=st.integers(0, 4), when=st.sampled_from(["before", "after"]))
    def an_operator_will_be_killed(self, writes, when):
        self.killed_at = [writes, when]

    @rule(index=st.integers(0, 1))
    def an_operator_is_killed(self, index):
        self.operators[index % len(self.operators)].restart()

    @precondition(lambda self: len(self.operators) == 1)
    @rule()
    def a_second_operator_begins(self):
        self.operators.append(Operator(self.api, self.fault))

    @precondition(lambda self: len(self.operators) == 2)
    @rule(index=st.integers(0, 1))
    def one_of_two_operators_ends(self, index):
        del self.operators[index]

    def fault(self, number, when):
        if self.killed_at is None or self.killed_at[1] != when:
            return
        self.killed_at[0] -= 1
        if self.killed_at[0] < 0:
            self.killed_at = None
            raise CrashError

    # -- the cluster -----------------------------------------------------------------------------------------------------------------

    @rule()
    def kuberay_makes_pods(self):
        self.nature.kuberay()

    @rule()
    def the_kubelet_starts_pods(self):
        self.nature.kubelet_starts()

    @rule()
    def the_kubelet_ends_pods(self):
        self.nature.kubelet_ends()

    @rule()
    def garbage_is_collected(self):
        self.api.collect_garbage()

    @rule()
    def all_goes_well(self):
        self.nature.everything()

    @rule(failure=st.sampled_from([FailureClass.NODE_LOST, FailureClass.HANG, FailureClass.HEAD_LOST]))
    def a_stage_fails(self, failure):
        for pod in self.nature.pods("Running")[:1]:
            self.nature.end(pod, "Failed", failure)

    @rule()
    def a_stage_succeeds(self):
        for pod in self.nature.pods("Running")[:1]:
            self.nature.succeed(pod)

    @rule(code=st.sampled_from([137, 143, 69]), words=st.sampled_from(["", "garbage", "[" * 4000, '{"stage": "sft"}']))
    def a_stage_ends_without_words(self, code, words):
        for pod in self.nature.pods("Running")[:1]:
            self.nature.end(pod, "Stopped", words=words, code=code)

    @rule(seconds=st.sampled_from([1, 7, 200, 400, 4000]))
    def time_passes(self, seconds):
        self.api.now += timedelta(seconds=seconds)

    # -- people ----------------------------------------------------------------------------------------------------------------------

    @rule(suspend=st.booleans())
    def somebody_suspends_or_resumes(self, suspend):
        self.edit(lambda raw: raw["spec"].update(suspend=suspend))

    @rule(mark=st.integers(0, 9))
    def somebody_annotates_the_run(self, mark):
        self.edit(lambda raw: raw["metadata"].update(annotations={"note": str(mark)}))

    @rule(seed=st.sampled_from(["wrong", 0]))
    def somebody_breaks_or_mends_the_spec(self, seed):
        self.edit(lambda raw: raw["spec"].update(seed=seed))

    @precondition(lambda self: self.api.get("prismruns", "demo"))
    @rule(policy=st.sampled_from(["Foreground", "Background"]), sure=st.sampled_from([False, False, True]))
    def somebody_deletes_the_run(self, policy, sure):
        if sure:
            self.api.delete("prismruns", "demo", policy)

    @rule(policy=st.sampled_from(["Foreground", "Background"]))
    def somebody_deletes_a_cluster(self, policy):
        for cluster in self.api.all("rayclusters")[:1]:
            self.api.delete("rayclusters", cluster["metadata"]["name"], policy)

    @rule(grace=st.sampled_from([None, 0]))
    def somebody_deletes_a_pod(self, grace):
        for pod in self.api.all("pods")[:1]:
            self.api.delete("pods", pod["metadata"]["name"], grace=grace)

    @precondition(lambda self: not self.api.get("prismruns", "demo"))
    @rule()
    def somebody_makes_a_run_of_the_same_name(self):
        self.api.create("prismruns", self.raw)

    def edit(self, change):
        if self.api.get("prismruns", "demo"):
            self.api.change("prismruns", "demo", change)

    # -- laws ------------------------------------------------------------------------------------------------------------------------

    def law(self, check):
        """An operator takes an assertion for a bug of its own and tries again: it is killed instead, and the breach is kept."""

        def checked(*arguments):
            try:
                check(*arguments)
            except AssertionError as breach:
                self.broken.append(breach)
                raise CrashError from breach

        return checked

    @invariant()
    def no_law_is_broken(self):
        if self.broken:
            raise self.broken[0]
        assert not self.bugs.found

    def check_creation(self, resource, body):
        if resource != "rayclusters":
            return
        run, labels = self.api.get("prismruns", "demo"), body["metadata"]["labels"]
        note(f"created {body['metadata']['name']}")
        assert run and run["metadata"]["uid"] == body["metadata"]["ownerReferences"][0]["uid"], "made for a run that is there"
        assert "deletionTimestamp" not in run["metadata"], "nothing is made for a run that is being deleted"
        status = PrismRunStatus.model_validate(run.get("status") or {"stages": []})
        assert not status.is_true("Finished"), "nothing is made after the end"
        stage, number = labels[STAGE_LABEL], int(labels[ATTEMPT_LABEL])
        told = [attempt.number for seen in status.stages if seen.name == stage for attempt in seen.attempts]
        assert number > max(told, default=0), "attempts strictly increase"
        for raw in (*self.api.all("rayclusters"), *self.api.all("pods")):
            owner = raw["metadata"]["ownerReferences"][0]["uid"]
            if run["metadata"]["uid"] in (owner, self.run_of.get(owner)):
                assert raw["metadata"]["labels"][STAGE_LABEL] != stage, f"{raw['metadata']['name']} is still there"
        self.run_of[body["metadata"]["uid"]] = run["metadata"]["uid"]

    def check_status(self, run, value):
        before = PrismRunStatus.model_validate(run["status"]) if run.get("status") else None
        after = PrismRunStatus.model_validate(value)
        assert len(json.dumps(value)) < MAX_STATUS_BYTES
        assert after.observed_generation == run["metadata"]["generation"]
        assert all(condition.observed_generation == after.observed_generation for condition in after.conditions)
        if before is None:
            return
        for condition in after.conditions:
            last = before.condition(condition.type)
            if last is not None:
                earlier, later = parse_time(last.last_transition_time), parse_time(condition.last_transition_time)
                assert earlier == later if last.status == condition.status else earlier <= later <= self.api.now
        if before.is_true("Finished"):
            assert after.is_true("Finished") and after.stages == before.stages, "the end is the end"
        known = {(stage.name, attempt.number): attempt for stage in after.stages for attempt in stage.attempts}
        for name, told in ((stage.name, attempt) for stage in before.stages for attempt in stage.attempts if attempt.outcome != "Running"):
            now = known.get((name, told.number))
            same = now is None or (now.outcome, now.failure_class) == (told.outcome, told.failure_class)
            assert same or now.outcome == "Succeeded", "what was told stays so, unless a checkpoint turns out to be committed"
        kept = [(s.checkpoint.uri, s.checkpoint.digest) for s in after.stages if s.checkpoint]
        told = [(s.checkpoint.uri, s.checkpoint.digest) for s in before.stages if s.state == "Succeeded" and s.checkpoint]
        assert set(told) <= set(kept), "a checkpoint is never forgotten"

    @invariant()
    def what_was_trained_is_not_trained_again(self):
        uids = [raw["metadata"]["uid"] for raw in self.api.all("prismruns")]
        assert len(uids) <= 1
        assert len({stage for stage, _ in self.nature.trained}) == len(self.nature.trained)

    def teardown(self):
        try:
            self.come_to_an_end()
        except CrashError:
            self.no_law_is_broken()
            raise
        logging.getLogger("prism_operator.kube.controller").removeHandler(self.bugs)

    def come_to_an_end(self):
        """The faults stop; everything is set right that people have to set right."""
        self.killed_at = None
        del self.operators[1:]
        (operator,) = self.operators
        if "deletionTimestamp" not in (self.api.get("prismruns", "demo") or {}).get("metadata", {}):
            self.edit(lambda raw: raw["spec"].update(suspend=False, seed=0))
        for left in itertools.count():
            assert left < NUM_ROUNDS, f"no end: {self.api.get('prismruns', 'demo')['status']['message']}"
            operator.listen_to_all()
            operator.compare()
            operator.work()
            run = self.api.get("prismruns", "demo")
            if run is None or (run.get("status", {}).get("summary") in ("Succeeded", "Failed") and not self.api.all("rayclusters")):
                break
            self.nature.everything()
            self.api.now += timedelta(seconds=310)
        self.wait_for_quiet(operator)
        if self.api.get("prismruns", "demo"):
            self.delete_at_last(operator)
        self.no_law_is_broken()

    def wait_for_quiet(self, operator):
        self.nature.wind_up()
        operator.listen_to_all()
        operator.work()
        self.api.now += timedelta(seconds=310)  # what was refused is tried again
        operator.work()
        operator.listen_to_all()
        operator.compare()
        operator.work()
        assert not self.api.all("rayclusters") and not self.api.all("pods")
        before = len(self.api.writes)
        for _ in range(5):
            self.api.now += timedelta(seconds=310)
            for key in operator.controller.inventory.runs():
                operator.controller.queue.add(key)
            operator.work()
        assert self.api.writes[before:] == []

    def delete_at_last(self, operator):
        self.api.delete("prismruns", "demo")
        for _ in range(3):
            operator.listen_to_all()
            operator.work()
            self.nature.wind_up()
        operator.listen_to_all()
        operator.work()
        assert not self.api.objects, "deletes always end"
        assert not operator.controller.inventory.runs()


class SharedCluster(Cluster):
    raw = run(clusterPolicy="Reuse")


often = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
Cluster.TestCase.settings = SharedCluster.TestCase.settings = often
TestAnyOrderOfEvents = Cluster.TestCase
TestAnyOrderOfEventsInASharedCluster = SharedCluster.TestCase
