"""A PrismRun becomes a plan with every choice made, or a refusal with every problem."""

import pytest

from builders import make_pipeline, make_run
from prism_operator.errors import BadRunError
from prism_operator.parse import parse_run
from prism_operator.plan import Site, make_plan, plan_problems
from prism_operator.problems import format_path
from prism_trainer.contract.checkpoint import CheckpointRef


def wiring(plan, stage):
    return {wire.role: wire.stage for wire in plan.stage(stage).wires}


@pytest.mark.parametrize(
    ("stage", "inputs"),
    [
        ("sft", {"policy": "model"}),
        ("discriminator", {"policy": "sft"}),
        ("alignment", {"policy": "sft", "discriminator": "discriminator"}),
        ("rlvr", {"policy": "alignment"}),
        ("evaluation", {"sft": "sft", "alignment": "alignment", "rlvr": "rlvr"}),
    ],
)
def test_each_stage_takes_its_inputs_from_the_nearest_earlier_stage_that_makes_them(stage, inputs):
    assert wiring(make_pipeline().plan(), stage) == inputs


def test_a_stage_may_name_the_policy_it_starts_from():
    run = make_run().stage("sft").stage("rlvr").stage("rlvr", "baseline", policy="sft").stage("rlvr", "raw", policy="model")
    assert wiring(run.plan(), "baseline") == {"policy": "sft"}
    assert wiring(run.plan(), "raw") == {"policy": "model"}


def test_an_evaluation_without_earlier_policies_measures_the_base_model():
    assert wiring(make_run().stage("evaluation").plan(), "evaluation") == {"model": "model"}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (("sft", {"config": {"optimizer": {"learningRate": 0.1}}}), {"sft", "discriminator", "alignment", "rlvr", "evaluation"}),
        (("alignment", {"config": {"alpha": 0.1}}), {"alignment", "rlvr", "evaluation"}),
        (("discriminator", {"data": [{"uri": "other.jsonl"}]}), {"discriminator", "alignment", "rlvr", "evaluation"}),
        (("rlvr", {"policy": "sft"}), {"rlvr", "evaluation"}),
        (("evaluation", {"checkpoints": ["rlvr"]}), {"evaluation"}),
        (("sft", {"config": {"saveEvery": 7}}), set()),
        (("rlvr", {"config": {"dumpEvery": 7}}), set()),
        (("evaluation", {"config": {"benchmarks": [{"name": "mmmu"}]}}), {"evaluation"}),
        (("evaluation", {"config": {"judge": {"model": "j", "baseUrl": "http://j"}}}), {"evaluation"}),
        (("rlvr", {"retries": {"hang": 7}, "deadlines": {"stageSeconds": 7}, "resources": {"cpus": 1}}), set()),
    ],
    ids=str,
)
def test_a_change_moves_the_digests_of_its_stage_and_of_all_that_follows_from_it(change, changed):
    before, after = make_pipeline(), make_pipeline()
    next(stage for stage in after.raw["spec"]["stages"] if stage["kind"] == change[0]).update(change[1])
    digests = [{stage.name: stage.config_digest for stage in run.plan().stages} for run in (before, after)]
    assert {name for name in digests[0] if digests[0][name] != digests[1][name]} == changed


@pytest.mark.parametrize(
    "spec", [{"seed": 1}, {"systemPrompt": "x"}, {"engine": "verl"}, {"model": {"uri": "base", "revision": "v2"}}], ids=str
)
def test_seed_prompt_engine_and_model_move_every_digest(spec):
    before, after = make_pipeline().plan(), make_pipeline(**spec).plan()
    assert all(a.config_digest != b.config_digest for a, b in zip(before.stages, after.stages, strict=True))


def test_how_fast_a_judge_is_asked_does_not_move_a_digest():
    judges = ({}, {"concurrency": 2, "timeoutSeconds": 1, "cache": "x", "apiKeyEnv": "KEY_OF_MINE"})
    digests = set()
    for more in judges:
        judge = {"model": "j", "baseUrl": "http://j", **more}
        digests.add(make_run().stage("evaluation", config={"judge": judge}).plan().stage("evaluation").config_digest)
    assert len(digests) == 1


SPREADS = {
    "sft": {"offload": True},
    "discriminator": {"offload": True},
    "alignment": {
        **{"tokensPerGpu": 30000, "maxPromptTokens": 100, "offload": True, "tensorParallel": 2, "memoryShare": 0.3},
        **{"rolloutSequences": 8, "speculativeTokens": 3, "cudaGraphs": False, "discriminatorGpus": 1},
    },
    "rlvr": {
        **{"tokensPerGpu": 30000, "maxPromptTokens": 100, "offload": True, "tensorParallel": 2, "memoryShare": 0.3},
        **{"rolloutSequences": 8, "speculativeTokens": 3, "cudaGraphs": False},
    },
    "evaluation": {"tensorParallel": 2, "memoryShare": 0.5, "maxPromptTokens": 100},
}
"""What a user changes after an out-of-memory, or to go faster: the stage goes on from its newest checkpoint."""


@pytest.mark.parametrize(("kind", "field", "value"), [(kind, *one) for kind, given in SPREADS.items() for one in given.items()])
def test_how_a_stage_spreads_over_gpus_does_not_move_a_digest(kind, field, value):
    before, after = make_pipeline(), make_pipeline()
    next(stage for stage in after.raw["spec"]["stages"] if stage["kind"] == kind).update(config={"gpu": {field: value}})
    plain, spread = before.plan().stages, after.plan().stages
    assert [stage.config_digest for stage in plain] == [stage.config_digest for stage in spread]
    assert plain != spread


def test_another_zero_stage_begins_again_because_deepspeeds_shards_fit_their_own_only():
    two, three = (make_run().stage("sft", config={"gpu": {"zeroStage": stage}}).plan().stage("sft") for stage in (2, 3))
    assert two.config_digest != three.config_digest


@pytest.mark.parametrize("kind", ["sft", "discriminator", "alignment", "rlvr", "evaluation"])
def test_another_engine_begins_its_stage_again_and_leaves_those_before_it(kind):
    before, after = make_pipeline(), make_pipeline()
    next(stage for stage in after.raw["spec"]["stages"] if stage["kind"] == kind).update(engine="verl")
    pairs = list(zip(before.plan().stages, after.plan().stages, strict=True))
    changed = [one.kind for one, other in pairs if one.config_digest != other.config_digest]
    assert changed[0] == kind


def test_folders_of_benchmarks_and_verdicts_are_located_as_data_sets_are_and_addresses_stay():
    benchmarks = [{"name": "mmmu", "uri": "data/mmmu"}, {"name": "mathvista"}, {"name": "wemath", "uri": "hf://datasets/a/b"}]
    judge = {"model": "j", "uri": "models/j", "cache": "verdicts"}
    run = make_run(engine="verl").stage("evaluation", config={"benchmarks": benchmarks, "judge": judge}).run()
    config = make_plan(run, Site(root_uri="/a", base_dir="/x")).stage("evaluation").config
    assert [one.uri for one in config.benchmarks] == ["/x/data/mmmu", None, "hf://datasets/a/b"]
    assert (config.judge.cache, config.judge.uri) == ("/x/verdicts", "/x/models/j")


def test_a_judge_that_has_to_be_served_is_not_for_engine_local():
    (problem,) = plan_problems(make_run().stage("evaluation", config={"judge": {"model": "j", "uri": "models/j"}}).run())
    assert "engine local, which serves no judge; give baseUrl, or take engine verl" in problem.sentence


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"benchmarks": [{"name": "mmmu"}, {"name": "mmmu"}]}, "benchmarks has mmmu more than once"),
        ({"seeds": [1, 1]}, "seeds has 1 more than once"),
        ({"benchmarks": ["mmmu"]}, "benchmarks"),
        ({"judge": {"model": "j", "baseUrl": "judge:8000"}}, "baseUrl"),
        ({"judge": {"model": "j"}}, "judge has neither of baseUrl and uri; give one"),
        ({"judge": {"model": "j", "baseUrl": "http://j", "uri": "j"}}, "judge has both of baseUrl and uri; give one"),
    ],
)
def test_an_evaluation_that_says_something_twice_or_wrongly_is_refused(config, sentence):
    problems = parse_run(make_run().stage("evaluation", config=config).raw).problems
    assert any(sentence in f"{format_path(problem.path)}: {problem.sentence}" for problem in problems)


def test_where_things_lie_does_not_move_a_digest():
    run = make_pipeline().run()
    plans = [make_plan(run, Site(root_uri=root, base_dir=base)) for root, base in (("/a", "/x"), ("/b", "/y"))]
    assert [s.config_digest for s in plans[0].stages] == [s.config_digest for s in plans[1].stages]


def test_a_pinned_checkpoint_counts_by_its_digest_and_not_by_its_place():
    def rlvr_digest(uri, digest):
        run = make_run().stage("sft", checkpoint={"uri": uri}).stage("rlvr")
        pin = CheckpointRef(stage="sft", uri=uri, digest=digest)
        return run.plan(pins={"sft": pin}).stage("rlvr").config_digest

    one, other = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert rlvr_digest("a", one) == rlvr_digest("b", one) != rlvr_digest("a", other)


def test_relative_paths_become_absolute_and_addresses_stay():
    plan = make_run().stage("sft", data=[{"uri": "train.json"}, {"uri": "/abs.json"}, {"uri": "s3://bucket/x.json"}]).plan()
    assert [source.uri for source in plan.stages[0].data] == ["/data/train.json", "/abs.json", "s3://bucket/x.json"]
    assert plan.model.uri == "/data/base"


@pytest.mark.parametrize(
    ("uri", "planned"),
    [
        ("org/set", "hf://datasets/org/set"),
        ("hf://datasets/org/set@v1/a/b.parquet", "hf://datasets/org/set@v1/a/b.parquet"),
        ("./org/set", "/data/org/set"),
        ("org/set/", "/data/org/set/"),
        ("org/set.json", "/data/org/set.json"),
        ("data/train-*.parquet", "/data/data/train-*.parquet"),
        ("s3://bucket/set/", "s3://bucket/set/"),
    ],
)
def test_two_words_that_name_no_file_are_a_data_set_of_the_hub(uri, planned):
    (source,) = make_run().stage("sft", data=[{"uri": uri}]).plan().stages[0].data
    assert source.uri == planned


def test_a_stage_overrides_single_fields_of_the_runs_settings():
    run = make_run(retries={"hang": 5, "nodeLost": 6}, deadlines={"stageSeconds": 10, "runSeconds": 99}, resources={"cpus": 2})
    plan = run.stage("sft", retries={"hang": 0}, deadlines={"progressSeconds": 3}, resources={"gpusPerNode": 1}).plan().stages[0]
    assert (plan.retries.hang, plan.retries.node_lost) == (0, 6)
    assert (plan.deadlines.stage_seconds, plan.deadlines.progress_seconds) == (10, 3)
    assert (plan.resources.cpus, plan.resources.num_gpus) == (2, 1)


@pytest.mark.parametrize(
    ("run", "path", "sentence"),
    [
        (make_run().stage("sft").stage("sft"), ("spec", "stages", 1, "name"), "a second stage is named 'sft'"),
        (make_run().stage("rlvr", policy="sfd").stage("sft"), ("spec", "stages", 0, "policy"), "'sfd', which is no stage of this run"),
        (make_run().stage("rlvr", policy="sft").stage("sft"), ("spec", "stages", 0, "policy"), "does not come before it"),
        (make_run().stage("alignment"), ("spec", "stages", 0), "needs a discriminator, and no earlier stage makes one"),
        (
            make_run().stage("discriminator").stage("rlvr", policy="discriminator"),
            ("spec", "stages", 1, "policy"),
            "a stage of kind discriminator, which makes no policy",
        ),
        (make_run().stage("sft", data=[]), ("spec", "stages", 0, "data"), "has no data set"),
        (make_run().stage("sft", "model"), ("spec", "stages", 0, "name"), "means the base model"),
        (
            make_run().stage("sft").stage("evaluation", checkpoints=["sft", "sfft"]),
            ("spec", "stages", 1, "checkpoints", 1),
            "did you mean 'sft'?",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stages_that_do_not_fit_together_are_refused_with_a_sentence(run, path, sentence):
    problems = plan_problems(run.run())
    assert any(problem.path == path and sentence in problem.sentence for problem in problems), problems


def test_a_refusal_carries_every_problem():
    run = make_run().stage("sft", data=[]).stage("rlvr", policy="nobody").stage("rlvr", data=[])
    with pytest.raises(BadRunError) as refusal:
        run.plan()
    assert len(refusal.value.problems) == 4
