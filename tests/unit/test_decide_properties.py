"""Whatever happens, in any order: the laws of a run hold.

A machine plays the world: it carries out what is decided, and in between anything happens. Processes die, results are lost, the clock
jumps, the caller goes away and comes back, the spec changes, the listing comes shuffled and double, and passes break off half-way.
"""

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builders import NOW, ROOT, heartbeat, make_manifest, make_run
from prism_operator.children import AttemptRecord, Children, CommittedCheckpoint, StopRequest, Unfinished, Wishes
from prism_operator.decide import decide
from prism_operator.names import output_uri
from prism_operator.observed import observe
from prism_operator.status import make_status
from prism_trainer.contract.report import FailureClass, StageResult


def plan(learning_rate):
    sft = {"config": {"optimizer": {"learningRate": learning_rate}}}
    run = make_run(deadlines={"progressSeconds": 60, "stopGraceSeconds": 10, "runSeconds": 5000})
    return run.stage("sft", **sft).stage("discriminator").stage("alignment").stage("evaluation").plan()


PLANS = (plan(0.1), plan(0.2))


class World(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.plan, self.now, self.previous = PLANS[0], NOW, None
        self.wishes = Wishes(since=NOW, reopen=True)
        self.attempts: dict[tuple[str, int], AttemptRecord] = {}
        self.checkpoints: dict[str, CommittedCheckpoint] = {}
        self.unfinished: dict[str, Unfinished] = {}
        self.ended = False

    # -- what the operator does ------------------------------------------------------------------------------------------------------

    @rule(random=st.randoms(use_true_random=False), steps=st.sampled_from([4, 4, 4, 4, 3, 2, 1, 0]))
    def reconcile(self, random, steps):
        """A pass that breaks off after some of its steps: stops, deletions, start, status."""
        self.one_pass(random, steps)

    @rule(random=st.randoms(use_true_random=False), passes=st.integers(1, 6))
    def all_goes_well(self, random, passes):
        """Else no run would get far."""
        if self.ended or self.wishes.interrupted:
            self.the_caller_comes_back(redo=True)
        for _ in range(passes):
            self.one_pass(random, steps=4)
            if self.living():
                self.the_stage_completes("result")

    def one_pass(self, random, steps):
        observed = observe(self.plan, self.listing(random), self.previous)
        decision = decide(self.plan, observed, self.now)
        if steps > 0:
            self.carry_out_stops(decision)
        if steps > 1:
            self.carry_out_deletes(decision)
        if steps > 2 and decision.start:
            self.carry_out_start(decision.start.job)
        if steps > 3:
            self.previous = make_status(self.plan, observed, decision, self.previous, self.now)
            self.ended = self.previous.is_true("Finished")
            self.wishes = replace(self.wishes, reopen=self.wishes.reopen and not self.ended)

    def listing(self, random):
        attempts = [*self.attempts.values(), *random.sample(list(self.attempts.values()), k=len(self.attempts) // 2)]
        checkpoints = [*self.checkpoints.values(), *random.sample(list(self.checkpoints.values()), k=len(self.checkpoints) // 2)]
        random.shuffle(attempts)
        random.shuffle(checkpoints)
        return Children(self.wishes, tuple(attempts), tuple(checkpoints), tuple(self.unfinished.values()))

    def carry_out_stops(self, decision):
        for stop in decision.stops:
            record = self.attempts[stop.stage, stop.number]
            assert record.alive
            time = self.now.isoformat()
            asked = record.stop or StopRequest(reason=stop.reason, requested_at=time)
            if stop.kill:
                record = replace(record, alive=False, exit_code=-9, ended_at=self.now)
            self.attempts[stop.stage, stop.number] = replace(record, stop=asked)

    def carry_out_deletes(self, decision):
        living = [output_uri(ROOT, stage, number) for stage, number in self.living()]
        for uri in decision.deletes:
            assert not any(uri.startswith(f"{folder}/") for folder in living), "a living attempt's folder is its own"
            found = self.checkpoints.pop(uri, None)
            assert found is None or not found.final, "a final checkpoint is never deleted"
            self.unfinished.pop(uri, None)

    def carry_out_start(self, job):
        assert not self.ended, "nothing is started after the end"
        assert not self.living(), "at most one attempt of a run lives"
        seen = [n for stage, n in self.attempts if stage == job.stage]
        seen += [c.attempt for c in (*self.checkpoints.values(), *self.unfinished.values()) if c.stage == job.stage]
        assert job.attempt > max(seen, default=0), "attempts strictly increase"
        for role, ref in job.inputs.items():
            if ref.stage != "model":
                manifest = self.checkpoints[ref.uri]
                assert manifest.final and manifest.digest == ref.digest, f"{role} is committed"
                assert manifest.config_digest == self.plan.stage(ref.stage).config_digest, f"{role} has the planned configuration"
        assert not self.finals(job.stage, job.config_digest), "what is done is never done again"
        if job.resume_from is not None:
            resumed = self.checkpoints[job.resume_from.uri]
            assert (resumed.stage, resumed.config_digest) == (job.stage, job.config_digest)
        record = AttemptRecord(job.stage, job.attempt, alive=True, config_digest=job.config_digest, started_at=self.now)
        self.attempts[job.stage, job.attempt] = record

    # -- what happens ----------------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 30, 61, 100_000, -3600]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.living())
    @rule()
    def the_stage_shows_a_sign_of_work(self):
        self.change(progress=heartbeat(self.living()[0][0], self.now))

    @precondition(lambda self: self.living())
    @rule(step=st.integers(1, 5))
    def the_stage_saves(self, step):
        self.commit(step, final=False)

    @precondition(lambda self: self.living())
    @rule(step=st.integers(1, 5))
    def the_stage_breaks_off_saving(self, step):
        (stage, number) = self.living()[0]
        uri = f"{output_uri(ROOT, stage, number)}/step-{step:06d}-half"
        self.unfinished[uri] = Unfinished(stage, number, uri)

    @precondition(lambda self: self.living())
    @rule(then=st.sampled_from(["result", "vanish", "linger"]))
    def the_stage_completes(self, then):
        self.commit(6, final=True)
        if then != "linger":
            self.end("Succeeded" if then == "result" else None)

    @precondition(lambda self: self.living())
    @rule(failure=st.sampled_from(list(FailureClass)))
    def the_stage_fails(self, failure):
        self.end("Failed", failure)

    @precondition(lambda self: self.living())
    @rule(code=st.sampled_from([None, 0, 1, 2, -9, -15]))
    def the_process_vanishes(self, code):
        self.end(None, code=code)

    @precondition(lambda self: any(self.attempts[key].stop for key in self.living()))
    @rule()
    def the_stage_stops_as_asked(self):
        self.end("Stopped")

    @precondition(lambda self: self.checkpoints)
    @rule(random=st.randoms(use_true_random=False))
    def somebody_deletes_a_checkpoint(self, random):
        del self.checkpoints[random.choice(list(self.checkpoints))]

    @precondition(lambda self: len(self.attempts) > len(self.living()))
    @rule(random=st.randoms(use_true_random=False))
    def somebody_deletes_the_reports_of_an_attempt(self, random):
        del self.attempts[random.choice([key for key, record in self.attempts.items() if not record.alive])]

    @rule()
    def the_caller_is_interrupted(self):
        self.wishes = replace(self.wishes, interrupted=True)

    @rule(redo=st.booleans())
    def the_caller_comes_back(self, redo):
        dead = [(stage, number) for (stage, number), record in self.attempts.items() if not record.alive]
        forgiven = {stage: max(n for s, n in dead if s == stage) for stage, _ in dead}
        self.wishes = Wishes(since=self.now, reopen=True, redo=redo, forgiven=forgiven)
        self.ended = False

    @rule(index=st.integers(0, 1))
    def the_spec_changes(self, index):
        self.plan = PLANS[index]

    # -- means -----------------------------------------------------------------------------------------------------------------------

    def living(self):
        return [key for key, record in self.attempts.items() if record.alive]

    def change(self, **fields):
        key = self.living()[0]
        self.attempts[key] = replace(self.attempts[key], **fields)

    def finals(self, stage, digest):
        return [c for c in self.checkpoints.values() if c.stage == stage and c.final and c.config_digest == digest]

    def commit(self, step, final):
        stage, number = self.living()[0]
        manifest = make_manifest(stage, number, step, final, self.attempts[stage, number].config_digest)
        uri = f"{output_uri(ROOT, stage, number)}/step-{step:06d}"
        self.checkpoints[uri] = CommittedCheckpoint.from_manifest(number, uri, manifest)

    def end(self, outcome, failure=None, code=0):
        stage, number = self.living()[0]
        result = outcome and StageResult(stage=stage, attempt=number, outcome=outcome, failure_class=failure)
        self.change(alive=False, result=result or None, exit_code=code, ended_at=self.now)

    @invariant()
    def at_most_one_attempt_lives(self):
        assert len(self.living()) <= 1

    @invariant()
    def the_status_is_whole_and_bounded(self):
        if self.previous is not None:
            assert len(self.previous.conditions) == len({condition.type for condition in self.previous.conditions}) == 11
            assert all(len(stage.attempts) <= 10 for stage in self.previous.stages)


World.TestCase.settings = settings(
    max_examples=80, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TestAnyOrderOfEvents = World.TestCase
