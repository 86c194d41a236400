"""What a real API server makes of the CRD: which objects it refuses with which words, what it lets change, what it shows.

Only etcd and an API server are needed. What CEL and the schema cannot say is in the table too: the API server takes it, and the operator
answers with the same sentence in the condition Accepted, which is made by the parser and the planner.
"""

import copy
import json
import os
from pathlib import Path

import pytest
import yaml

from builders import make_pipeline
from cluster.harness.commands import CommandFailed, wait_until
from prism_operator.crdgen.definition import FILE_NAME
from prism_operator.kube.survey import cluster_problems
from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = f"crd-admission-{os.getpid()}"
SOUND = {"pvc": {"claimName": "prism-runs"}}
BUCKET = {"objectStore": {"uri": "s3://bucket/prefix", "credentials": {"name": "old", "key": "credentials"}}}
REMOVED = object()


@pytest.fixture(scope="module")
def server(api_only):
    """With the CRD, applied by the client, and a namespace of our own."""
    api_only.kubectl("apply", "-f", CRDS / FILE_NAME)
    # Not `kubectl wait`: it gives up on an object that has no conditions yet.
    wait_until(lambda: "prismruns" in api_only.kubectl("api-resources", "--api-group=prism.dev"), "prismruns are known", seconds=60)
    api_only.kubectl("create", "namespace", NAMESPACE)
    yield api_only
    api_only.kubectl("delete", "prismruns", "--all", "-n", NAMESPACE)
    api_only.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def kubectl(server):
    """In our namespace."""
    return lambda *arguments: server.kubectl("-n", NAMESPACE, *arguments)


@pytest.fixture
def answer(kubectl, tmp_path):
    """What the API server says to an object, for which nothing is stored: its refusal, or nothing."""

    def ask(raw):
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(raw))
        return refusal(kubectl, "create", "--dry-run=server", "-f", file)

    return ask


def refusal(kubectl, *arguments):
    """The words of a command that fails; empty when it does not."""
    try:
        kubectl(*arguments)
    except CommandFailed as error:
        return str(error)
    return ""


def sound(name="demo", **spec):
    """All five kinds, on a volume."""
    raw = make_pipeline(storage=copy.deepcopy(SOUND), **spec).raw
    raw["metadata"]["name"] = name
    return raw


def changed(*changes):
    """`sound` with values set at their paths, or removed."""
    raw = sound()
    for path, value in changes:
        here = raw
        *way, last = path
        for part in way:
            here = here.setdefault(part, {}) if isinstance(here, dict) else here[part]
        if value is REMOVED:
            del here[last]
        else:
            here[last] = value
    return raw


def at(dotted, value=REMOVED):
    """`stages.0.config.alpha`, below the spec unless it begins with a dot."""
    parts = [int(part) if part.isdigit() else part for part in dotted.lstrip(".").split(".")]
    return (parts if dotted.startswith(".") else ["spec", *parts]), value


SFT, DISCRIMINATOR, ALIGNMENT, RLVR, EVALUATION = (f"stages.{index}" for index in range(5))

REFUSED_AT_ADMISSION = {
    "no spec": ([at(".spec")], "spec: Required value"),
    "no model": ([at("model")], "spec.model: Required value"),
    "another version": ([at(".apiVersion", "prism.dev/v2")], "no matches for kind"),
    "a long name": ([at(".metadata.name", "x" * 37)], "metadata.name: expected at most 36 lower-case letters, digits and '-'"),
    "a name with a dot": ([at(".metadata.name", "a.b")], "metadata.name: expected at most 36 lower-case letters, digits and '-'"),
    "a name in capitals": ([at(".metadata.name", "Demo")], "metadata.name: Invalid value"),
    "no storage": ([at("storage", {})], "found none of pvc and objectStore; give exactly one"),
    "two storages": ([at("storage", SOUND | BUCKET)], "found both of pvc and objectStore; give exactly one"),
    "a local storage": (
        [at("storage", {"local": {"path": "runs"}})],
        "spec.storage: Forbidden: local is for `prism run` on one machine; on a cluster, give pvc or objectStore",
    ),
    "a local storage beside another": ([at("storage.local", {"path": "runs"})], "spec.storage: Forbidden: local is for `prism run`"),
    "a bucket by http": ([at("storage", {"objectStore": {"uri": "http://bucket"}})], "spec.storage.objectStore.uri in body should match"),
    "no stages": ([at("stages", [])], "spec.stages in body should have at least 1 items"),
    "too many stages": (
        [at("stages", [{"kind": "sft", "name": f"s{n}", "data": [{"uri": "d"}]} for n in range(33)])],
        "must have at most 32 items",
    ),
    "a kind there is not": ([at(f"{SFT}.kind", "stf")], 'spec.stages[0].kind: Unsupported value: "stf"'),
    "a stage without a kind": ([at(f"{SFT}.kind")], "spec.stages[0].kind: Required value"),
    "two stages of one name": (
        [at(f"{SFT}.name", "first"), at(f"{RLVR}.name", "first")],
        "a second stage is named first; give each a name of its own",
    ),
    "a name that another has by default": ([at(f"{RLVR}.name", "sft")], "a second stage is named sft; give each a name of its own"),
    "a stage named model": ([at(f"{SFT}.name", "model")], "model means the base model; give the stage another name"),
    "a long name of a stage": ([at(f"{SFT}.name", "x" * 21)], "spec.stages[0].name: Too long"),
    "a stage named in capitals": ([at(f"{SFT}.name", "SFT")], "spec.stages[0].name in body should match"),
    "a stage without data": (
        [at(f"{RLVR}.data")],
        "spec.stages: Forbidden: stage rlvr: found no data set; give at least one, or a checkpoint to skip it with",
    ),
    "a data set without an address": ([at(f"{SFT}.data", [{"weight": 1}])], "spec.stages[0].data[0].uri: Required value"),
    "a weight of nothing": ([at(f"{SFT}.data.0.weight", 0)], "should be greater than 0"),
    "an option of another kind": (
        [at(f"{SFT}.config.alpha", 0.5)],
        "stage sft: found config.alpha with kind sft; only kind alignment may have it",
    ),
    "an option of two other kinds": (
        [at(f"{SFT}.config.rollout", {})],
        "found config.rollout with kind sft; only kind alignment and rlvr may have it",
    ),
    "an input of another kind": (
        [at(f"{RLVR}.discriminator", "discriminator")],
        "found discriminator with kind rlvr; only kind alignment may have it",
    ),
    "an evaluation that trains": (
        [at(f"{EVALUATION}.config.optimizer", {})],
        "found config.optimizer with kind evaluation; only kind sft and discriminator",
    ),
    "a configuration of another kind": (
        [at(f"{SFT}.config.kind", "rlvr")],
        "found config.kind rlvr with kind sft; leave config.kind out",
    ),
    "a range that is narrower for a kind": (
        [at(f"{DISCRIMINATOR}.config", {"batchSize": 1, "microBatchSize": 1})],
        "config.batchSize of kind discriminator: expected at least 2",
    ),
    "nothing a batch": ([at(f"{SFT}.config.batchSize", 0)], "should be greater than or equal to 1"),
    "a word for a number": ([at(f"{SFT}.config.batchSize", "many")], "must be of type integer"),
    "half a sequence": ([at(f"{SFT}.config.batchSize", 1.5)], "must be of type integer"),
    "no learning": ([at(f"{SFT}.config.optimizer", {"learningRate": 0})], "should be greater than 0"),
    "a moment that never decays": ([at(f"{SFT}.config.optimizer", {"beta1": 1})], "should be less than 1"),
    "an algorithm there is not": ([at(f"{RLVR}.config.algorithm", {"name": "ppo"})], 'Unsupported value: "ppo"'),
    "an algorithm without a name": ([at(f"{RLVR}.config.algorithm", {"clipLow": 0.1})], "config.algorithm.name: Required value"),
    "an option of another algorithm": (
        [at(f"{RLVR}.config.algorithm", {"name": "gspo", "overlongPenalty": 1})],
        "found overlongPenalty with name gspo; only name dapo may have it",
    ),
    "a benchmark there is not": ([at(f"{EVALUATION}.config.benchmarks", [{"name": "gsm8k"}])], 'Unsupported value: "gsm8k"'),
    "an evaluation of nothing": ([at(f"{EVALUATION}.checkpoints", [])], "should have at least 1 items"),
    "an engine there is not": ([at("engine", "ray")], 'spec.engine: Unsupported value: "ray"'),
    "a cluster policy there is not": ([at("clusterPolicy", "Sometimes")], 'Unsupported value: "Sometimes"'),
    "a misspelt setting": ([at("retires", {})], 'unknown field "spec.retires"'),
    "a misspelt option": ([at(f"{RLVR}.config.rollout", {"groupSice": 4})], 'unknown field "spec.stages[3].config.rollout.groupSice"'),
    "a token in the clear": (
        [at("env", [{"name": "HF_TOKEN", "value": "x"}])],
        "spec.env[0].name: Forbidden: HF_TOKEN looks like a secret, and env stands in the object in the clear; give it by reference",
    ),
    "a key in the clear, in small letters": (
        [at(f"{SFT}.env", [{"name": "aws_secret_access_key", "value": "x"}])],
        "spec.stages[0].env[0].name: Forbidden: aws_secret_access_key looks like a secret",
    ),
    "a variable that cannot be named so": ([at("env", [{"name": "1A", "value": "x"}])], "spec.env[0].name in body should match"),
    "a variable twice": ([at("env", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])], "spec.env[1]: Duplicate value"),
    "a secret without a key": ([at("secrets", {"wandb": {"name": "wandb"}})], "spec.secrets.wandb.key: Required value"),
    "a digest that is none": (
        [at(f"{SFT}.checkpoint", {"uri": "x", "digest": "sha256:abc"})],
        "spec.stages[0].checkpoint.digest in body should match",
    ),
    "a seed below nothing": ([at("seed", -1)], "should be greater than or equal to 0"),
    "no machine": ([at("resources", {"nodes": 0})], "spec.resources.nodes in body should be greater than or equal to 1"),
    "no network card of a kind": (
        [at("resources", {"rdma": {"rdma/hca": 0}})],
        "spec.resources.rdma.rdma/hca in body should be greater than or equal to 1",
    ),
    "memory in words": ([at("resources", {"memory": "16 GB"})], "spec.resources.memory in body should match"),
    "fewer than no retries": ([at("retries", {"hang": -1})], "spec.retries.hang in body should be greater than or equal to 0"),
    "no time for a stage": ([at(f"{SFT}.deadlines", {"stageSeconds": 0})], "should be greater than or equal to 1"),
    "a pod template that is a text": ([at("podTemplate", "spec: {}")], "spec.podTemplate in body must be of type object"),
    "a queue without a name": ([at("queue", {"priority": "high"})], "spec.queue.name: Required value"),
}
"""What is changed of a sound object, and the words it is refused with."""

REFUSED_BY_THE_OPERATOR = {
    "batches that do not divide": (
        [at(f"{SFT}.config", {"batchSize": 5, "microBatchSize": 2})],
        "batchSize is 5, not a multiple of microBatchSize 2",
    ),
    "half a pair": ([at(f"{DISCRIMINATOR}.config", {"batchSize": 3, "microBatchSize": 3})], "a pair gives two, so it must be even"),
    "more experts for a token than there are": (
        [at(f"{DISCRIMINATOR}.config.expertsPerToken", 9)],
        "expertsPerToken is 9, above numExperts 4; lower it",
    ),
    "nothing left to train": ([at(f"{SFT}.config.freezeLanguage", True)], "nothing is left to train; set one to false"),
    "an alignment without a discriminator": (
        [at("stages", [{"kind": "alignment", "data": [{"uri": "d"}]}])],
        "needs a discriminator, and no earlier stage makes one",
    ),
    "a policy of nobody": ([at(f"{RLVR}.policy", "stf")], "which is no stage of this run; did you mean 'sft'?"),
    "a policy that comes later": ([at(f"{SFT}.policy", "rlvr")], "which does not come before it; change the order of spec.stages"),
    "a policy of a stage that makes none": (
        [at(f"{RLVR}.policy", "discriminator")],
        "a stage of kind discriminator, which makes no policy",
    ),
    "an evaluation of a stage without a policy": ([at(f"{EVALUATION}.checkpoints", ["discriminator"])], "which makes no policy"),
    "names that share a condition": (
        [at(f"{SFT}.name", "a-b"), at(f"{RLVR}.name", "a--b")],
        "would share one condition; rename one",
    ),
}
"""What only shows when defaults are filled in or stages are put together."""

RIGHT_ON_ONE_MACHINE = {"a local storage"}


def sentences(raw):
    """What the parser and the planner say."""
    parsed = parse_run(raw)
    return [str(problem) for problem in (*parsed.problems, *(plan_problems(parsed.run) if parsed.run else ()))]


@pytest.mark.parametrize(("changes", "words"), REFUSED_AT_ADMISSION.values(), ids=REFUSED_AT_ADMISSION)
def test_a_bad_object_is_refused_at_admission(answer, changes, words):
    assert words in answer(changed(*changes))


@pytest.mark.parametrize("row", set(REFUSED_AT_ADMISSION) - RIGHT_ON_ONE_MACHINE)
def test_what_admission_refuses_prism_validate_refuses_too(row):
    assert sentences(changed(*REFUSED_AT_ADMISSION[row][0]))


@pytest.mark.parametrize(("changes", "words"), REFUSED_BY_THE_OPERATOR.values(), ids=REFUSED_BY_THE_OPERATOR)
def test_what_admission_cannot_see_the_operator_refuses(answer, changes, words):
    raw = changed(*changes)
    assert answer(raw) == ""
    assert any(words in sentence for sentence in sentences(raw)), sentences(raw)


def test_a_sound_object_is_taken(answer):
    assert answer(sound()) == ""


def test_engine_verl_on_several_machines_is_taken_and_planned(answer):
    gpus = {"nodes": 2, "gpusPerNode": 8, "cpus": 28, "sharedMemory": "64Gi", "rdma": {"rdma/hca": 8}}
    raw = changed(at("engine", "verl"), at("resources", gpus), at(f"{EVALUATION}.resources", {"nodes": 1, "rdma": {"rdma/ib": 1}}))
    assert answer(raw) == "" and sentences(raw) == []
    assert cluster_problems(parse_run(raw).run) == []


def test_the_longest_names_and_lists_are_taken(answer):
    stages = [{"kind": "sft", "name": f"stage-{number:014d}", "data": [{"uri": "d" * 1024}]} for number in range(32)]
    env = [{"name": f"V{number}", "value": "x" * 2000} for number in range(100)]
    assert answer(changed(at(".metadata.name", "x" * 36), at("stages", stages), at("env", env))) == ""


def test_an_option_that_is_written_out_as_null_is_left_out(kubectl, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(changed(at("model", {"uri": "base", "revision": None}), at("queue", None))))
    stored = json.loads(kubectl("create", "--dry-run=server", "-o", "json", "-f", file))["spec"]
    assert stored["model"] == {"uri": "base"} and "queue" not in stored


def test_a_pod_template_keeps_all_it_says(kubectl, tmp_path):
    patch = {
        "spec": {
            "nodeSelector": {"a": "b"},
            "priorityClassName": None,
            "containers": [{"name": "ray-head", "securityContext": {"runAsUser": 7}}],
        }
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(changed(at("podTemplate", patch))))
    assert json.loads(kubectl("create", "--dry-run=server", "-o", "json", "-f", file))["spec"]["podTemplate"] == patch


def test_all_examples_can_be_applied_and_applied_again(kubectl):
    examples = len(list((CRDS / "examples").glob("*.yaml")))
    for answer in ("created", "unchanged"):
        lines = kubectl("apply", "-f", CRDS / "examples").splitlines()
        assert [line.split()[-1] for line in lines] == [answer] * examples


def test_explain_tells_what_an_option_is_and_its_default(kubectl):
    told = " ".join(kubectl("explain", "prismrun.spec.stages.config.optimizer.learningRate").split())
    assert "Peak learning rate. Default: 1e-05 (sft, discriminator), 1e-06 (alignment, rlvr)." in told


def stage_status(name, state="Pending", attempts=0):
    numbers = [{"number": number + 1, "outcome": "Running"} for number in range(attempts)]
    return {"name": name, "kind": name, "state": state, "configDigest": "sha256:0", "attempts": numbers}


def condition(type_, status="True"):
    return {"type": type_, "status": status, "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00+00:00"}


WAITING = [stage_status(kind) for kind in ("sft", "discriminator", "alignment", "rlvr", "evaluation")]
STATES = {
    "fresh": ({}, None),
    "waiting": ({}, {"stages": WAITING, "conditions": [condition("Accepted"), condition("Finished", "False")]}),
    "started": ({}, {"stages": [stage_status("sft", "Succeeded", 1), stage_status("discriminator", "Retrying", 2), *WAITING[2:]]}),
    "skipped": (
        {"checkpoint": {"uri": "old"}},
        {"stages": [stage_status("sft", "Skipped"), stage_status("discriminator", "Running", 1), *WAITING[2:]]},
    ),
    "finished": ({}, {"stages": WAITING, "conditions": [condition("Finished")]}),
}
"""Fields of the first stage, and the status that the operator wrote."""

HAS_STARTED = "or one after it has started, so it stays where and as it is"
HAS_FINISHED = "and the run has finished; only ttlSecondsAfterFinished may still change"
ANOTHER_STAGE = {"kind": "sft", "name": "another", "data": [{"uri": "d"}]}

CHANGES = [
    ("fresh", "replace", "model/uri", "other", "the model of a run stays as it is, because every checkpoint began with it"),
    ("fresh", "replace", "storage/pvc/claimName", "other", "the storage of a run stays as it is, because its checkpoints lie there"),
    ("fresh", "replace", "storage", BUCKET, "the storage of a run stays as it is"),
    ("fresh", "add", "seed", 1, "the seed of a run stays as it is, because it enters every result"),
    ("fresh", "add", "seed", 0, ""),
    ("waiting", "add", "engine", "verl", ""),
    ("waiting", "add", "stages/0/config", {"epochs": 2}, ""),
    ("waiting", "remove", "stages/4", None, ""),
    ("started", "add", "engine", "verl", "engine stays as it is once a stage has started, because it enters its result"),
    ("started", "add", "systemPrompt", "Think.", "systemPrompt stays as it is once a stage has started"),
    ("started", "add", "stages/0/config", {"epochs": 2}, f"stage sft {HAS_STARTED}"),
    ("started", "add", "stages/1/config", {"epochs": 2}, f"stage discriminator {HAS_STARTED}"),
    ("started", "add", "stages/2/config", {"alpha": 0.4}, ""),
    ("started", "replace", "stages/0/data/0/uri", "other", f"stage sft {HAS_STARTED}"),
    ("started", "add", "stages/0/data/-", {"uri": "more"}, f"stage sft {HAS_STARTED}"),
    ("started", "add", "stages/0/checkpoint", {"uri": "x"}, f"stage sft {HAS_STARTED}"),
    ("started", "add", "stages/0/engine", "verl", f"stage sft {HAS_STARTED}"),
    ("started", "add", "stages/1/policy", "model", f"stage discriminator {HAS_STARTED}"),
    ("started", "add", "stages/0/name", "sft", ""),
    ("started", "add", "stages/0/name", "first", f"stage sft {HAS_STARTED}"),
    ("started", "remove", "stages/0", None, f"stage sft {HAS_STARTED}"),
    ("started", "remove", "stages/4", None, ""),
    ("started", "add", "stages/0", ANOTHER_STAGE, f"stage sft {HAS_STARTED}"),
    ("started", "add", "stages/1", ANOTHER_STAGE, f"stage discriminator {HAS_STARTED}"),
    ("started", "add", "stages/2", ANOTHER_STAGE, ""),
    ("started", "add", "stages/3/checkpoint", {"uri": "x"}, ""),
    ("started", "add", "stages/1/deadlines", {"stageSeconds": 9}, ""),
    ("started", "add", "stages/1/retries", {"hang": 9}, ""),
    ("started", "add", "stages/1/resources", {"memory": "64Gi"}, ""),
    ("started", "add", "stages/1/image", "repaired", ""),
    ("started", "add", "stages/1/env", [{"name": "A", "value": "1"}], ""),
    ("started", "add", "stages/1/podTemplate", {"spec": {}}, ""),
    ("started", "add", "suspend", True, ""),
    ("started", "add", "deadlines", {"runSeconds": 9}, ""),
    ("started", "add", "retries", {"hang": 9}, ""),
    ("started", "add", "retention", {"keepIntermediate": 9}, ""),
    ("started", "add", "ttlSecondsAfterFinished", 9, ""),
    ("skipped", "replace", "stages/0/checkpoint/uri", "other", f"stage sft {HAS_STARTED}"),
    ("finished", "add", "ttlSecondsAfterFinished", 9, ""),
    ("finished", "add", "suspend", True, f"found a change of suspend, {HAS_FINISHED}"),
    ("finished", "add", "retries", {"hang": 9}, f"found a change of retries, {HAS_FINISHED}"),
    ("finished", "add", "podTemplate", {"spec": {}}, f"found a change of podTemplate, {HAS_FINISHED}"),
    ("finished", "add", "stages/0/image", "repaired", f"found a change of stages, {HAS_FINISHED}"),
    ("finished", "remove", "stages/4", None, f"found a change of stages, {HAS_FINISHED}"),
]
"""State of the run, change of the spec in JSON patch's words, and the words it is refused with."""


def stored(kubectl, tmp_path, raw, status):
    file = tmp_path / "stored.yaml"
    file.write_text(yaml.safe_dump(raw))
    kubectl("apply", "-f", file)
    if status is not None:
        write_status(kubectl, raw["metadata"]["name"], status)


def write_status(kubectl, name, status):
    kubectl("patch", "prismrun", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


@pytest.fixture(scope="module")
def states(server, tmp_path_factory):
    """A run in each state; changes of it are only asked about."""
    for name, (fields, status) in STATES.items():
        raw = sound(name)
        raw["spec"]["stages"][0] |= copy.deepcopy(fields)
        stored(lambda *arguments: server.kubectl("-n", NAMESPACE, *arguments), tmp_path_factory.mktemp(name), raw, status)


def patched(kubectl, name, operation, path, value):
    change = [{"op": operation, "path": f"/spec/{path}", **({} if operation == "remove" else {"value": value})}]
    return refusal(kubectl, "patch", "prismrun", name, "--dry-run=server", "--type=json", "-p", json.dumps(change))


@pytest.mark.parametrize(
    ("state", "operation", "path", "value", "words"), CHANGES, ids=[f"{row[0]}: {row[1]} {row[2]} {str(row[3])[:20]}" for row in CHANGES]
)
def test_a_run_may_be_changed_as_far_as_its_work_allows(kubectl, states, state, operation, path, value, words):
    found = patched(kubectl, state, operation, path, value)
    assert words in found if words else found == ""


def test_a_finished_run_may_still_be_labelled_and_deleted(kubectl, states):
    assert refusal(kubectl, "label", "prismrun", "finished", "kept=yes", "--dry-run=server") == ""
    assert refusal(kubectl, "delete", "prismrun", "finished", "--dry-run=server") == ""


def test_a_client_cannot_slip_past_the_status_by_writing_it_too(kubectl, states):
    change = json.dumps({"status": {"conditions": [], "stages": []}, "spec": {"suspend": True}})
    assert HAS_FINISHED in refusal(kubectl, "patch", "prismrun", "finished", "--dry-run=server", "--type=merge", "-p", change)


def test_credentials_may_be_renewed_and_the_bucket_stays(kubectl, tmp_path):
    stored(kubectl, tmp_path, sound("bucket") | {"spec": sound()["spec"] | {"storage": BUCKET}}, STATES["started"][1])
    assert patched(kubectl, "bucket", "replace", "storage/objectStore/credentials/name", "new") == ""
    assert patched(kubectl, "bucket", "add", "storage/objectStore/endpoint", "http://other") == ""
    assert "the storage of a run stays" in patched(kubectl, "bucket", "replace", "storage/objectStore/uri", "s3://other")
    assert "the storage of a run stays" in patched(kubectl, "bucket", "replace", "storage", SOUND)


def test_the_status_of_a_started_run_can_still_be_written(kubectl, states):
    write_status(kubectl, "started", {"progress": 41})
    write_status(kubectl, "finished", {"message": "Done."})


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"summary": "Sleeping"}, 'Unsupported value: "Sleeping"'),
        ({"progress": 101}, "should be less than or equal to 100"),
        ({"stages": [{"name": "sft", "kind": "sft", "state": "Running"}]}, "status.stages[0].configDigest: Required value"),
        ({"stages": [stage_status("sft"), stage_status("sft")]}, "status.stages[1]: Duplicate value"),
        ({"conditions": [condition("Finished"), condition("Finished")]}, "status.conditions[1]: Duplicate value"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_status_that_makes_no_sense_is_refused(kubectl, states, status, words):
    arguments = ("patch", "prismrun", "waiting", "--subresource=status", "--dry-run=server", "--type=merge")
    assert words in refusal(kubectl, *arguments, "-p", json.dumps({"status": status}))


def test_conditions_of_several_writers_stand_side_by_side(kubectl, tmp_path):
    """By server-side apply, each owns the types it writes."""
    stored(kubectl, tmp_path, sound("shared"), None)
    for manager, type_ in (("prism", "Accepted"), ("somebody", "Audited")):
        file = tmp_path / f"{manager}.yaml"
        status = {"conditions": [condition(type_)]}
        head = {"apiVersion": "prism.dev/v1alpha1", "kind": "PrismRun", "metadata": {"name": "shared"}}
        file.write_text(yaml.safe_dump(head | {"status": status}))
        kubectl("apply", "--server-side", "--subresource=status", f"--field-manager={manager}", "-f", file)
    types = kubectl("get", "prismrun", "shared", "-o", "jsonpath={.status.conditions[*].type}")
    assert sorted(types.split()) == ["Accepted", "Audited"]


SHOWN = {
    "stage": "alignment",
    "summary": "Retrying",
    "progress": 41,
    "attempt": 2,
    "gpus": 32,
    "cluster": "shown-alignment-a2",
    "checkpoint": {"uri": "shown/checkpoints/discriminator"},
    "reason": "NodeLost",
    "startedAt": "2026-01-01T00:00:00.123456+00:00",
}


def test_get_shows_the_columns(kubectl, tmp_path):
    stored(kubectl, tmp_path, sound("shown", queue={"name": "team-a"}), SHOWN)
    head, row = kubectl("get", "prun", "shown").splitlines()
    assert head.split() == ["NAME", "STAGE", "STATUS", "PROGRESS", "ATTEMPT", "GPUS", "AGE"]
    assert row.split()[:6] == ["shown", "alignment", "Retrying", "41", "2", "32"]


def test_get_wide_shows_the_rest(kubectl, tmp_path):
    stored(kubectl, tmp_path, sound("shown", queue={"name": "team-a"}), SHOWN)
    head, row = kubectl("get", "prismrun", "shown", "-o", "wide").splitlines()
    assert head.split()[7:] == ["QUEUE", "CLUSTER", "CHECKPOINT", "REASON", "STARTED"]
    assert row.split()[7:11] == ["team-a", "shown-alignment-a2", "shown/checkpoints/discriminator", "NodeLost"]
    assert row.split()[11] not in ("<invalid>", "<unknown>")


def test_a_run_is_found_by_its_category_and_short_name(kubectl, states):
    assert "prismrun.prism.dev/fresh" in kubectl("get", "prism", "-o", "name")
    assert "prismrun.prism.dev/fresh" in kubectl("get", "prun", "-o", "name")


def test_the_definition_is_applied_again_without_a_change(server):
    assert "unchanged" in server.kubectl("apply", "-f", CRDS / FILE_NAME)
