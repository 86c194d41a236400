"""`kubectl prism`: what a user types, what the API server is asked, and what comes back."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from api_stub import RUNS, TOKEN, api_stub, status, write_kubeconfig
from builders import at, make_run
from prism_operator.cli import app
from prism_operator.kube.survey import cluster_problems
from prism_operator.kubectl import wishes
from prism_operator.names import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL
from prism_operator.new import write_prismrun
from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems
from prism_operator.source import read_source

DEMO = f"{RUNS.format('team')}/demo"


@pytest.fixture
def api(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with api_stub() as stub:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", stub.url)))
        yield stub


def kubectl_prism(*arguments):
    found = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="kubectl prism")
    assert TOKEN not in found.output and (found.exception is None or isinstance(found.exception, SystemExit)), found.exception
    return found.exit_code, found.stdout, found.stderr


def cluster_run(name="demo", **spec):
    return make_run(name, storage={"pvc": {"claimName": "runs", "subPath": "team"}}, **spec).stage("sft").stage("rlvr")


def running(builder):
    return {**builder.raw, "status": builder.scene().live("sft", cluster="demo-sft-a1").status(at(60)).to_dict()}


def failed(builder):
    scene = builder.scene().done("sft").attempt("rlvr", 1, failed="UserError", cluster="demo-rlvr-a1")
    return {**builder.raw, "status": scene.status(at(60)).to_dict()}


def test_status_shows_stages_attempts_and_where_they_run(api):
    api.put_run(running(cluster_run()))
    code, out, _ = kubectl_prism("status", "demo")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["NAME", "STAGE", "STATUS", "PROGRESS", "ATTEMPT", "GPUS", "AGE"]
    assert lines[1].split()[:3] == ["demo", "sft", "Running"]
    assert re.search(r"attempt 1  Running +started \S+ ago, demo-sft-a1", out)


def test_status_shows_why_a_run_failed_and_only_the_conditions_that_are_amiss(api):
    api.put_run(failed(cluster_run()))
    _, out, _ = kubectl_prism("status", "demo")
    assert "attempt 1  Failed (UserError): it broke" in out
    assert "RLVRSucceeded" in out and "SFTSucceeded" not in out and "Accepted" not in out
    assert "SFTSucceeded" in kubectl_prism("status", "demo", "-o", "wide")[1]


def test_status_without_a_name_lists_the_namespace_and_with_A_all(api):
    api.put_run(running(cluster_run()))
    api.put_run(running(cluster_run("other")), namespace="elsewhere")
    assert [line.split()[0] for line in kubectl_prism("status")[1].splitlines()] == ["NAME", "demo"]
    rows = [line.split()[:2] for line in kubectl_prism("status", "-A")[1].splitlines()]
    assert rows == [["NAMESPACE", "NAME"], ["elsewhere", "other"], ["team", "demo"]]


def test_status_prints_the_object_for_machines_without_the_bookkeeping(api):
    stored = api.put_run(running(cluster_run()))
    shown = json.loads(kubectl_prism("status", "demo", "-o", "json")[1])
    assert "managedFields" not in shown["metadata"]
    assert shown["status"] == stored["status"]
    assert yaml.safe_load(kubectl_prism("status", "demo", "-o", "yaml")[1]) == shown
    assert len(json.loads(kubectl_prism("status", "-o", "json")[1])["items"]) == 1


def test_a_run_the_operator_has_not_seen_says_so(api):
    api.put_run(cluster_run().raw)
    assert "The operator has not looked at it yet. See whether it runs" in kubectl_prism("status", "demo")[1]


def test_watching_ends_with_the_run_and_fails_where_it_failed(api):
    builder = cluster_run()
    api.put_run(running(builder))
    api.after_read = lambda path: api.put_run(failed(builder))
    code, out, _ = kubectl_prism("status", "demo", "-w")
    assert code == 1
    assert "sft            started, attempt 1" in out and "rlvr           failed: " in out


def test_prism_means_this_machine_until_a_cluster_is_named(api):
    api.put_run(running(cluster_run()))
    here = CliRunner().invoke(app, ["status", "demo"])
    assert here.exit_code == 1 and "for a run on a cluster, use kubectl prism" in here.stderr
    assert "demo-sft-a1" in CliRunner().invoke(app, ["status", "demo", "-n", "team"]).stdout
    assert "demo-sft-a1" in CliRunner().invoke(app, ["status", "demo", "--context", "here"]).stdout


def test_namespace_and_context_are_kubectls(api):
    api.put_run(running(cluster_run()))
    assert "no PrismRun 'demo' in namespace 'other'" in kubectl_prism("status", "demo", "--context", "there")[2]
    assert kubectl_prism("status", "demo", "--context", "there", "-n", "team")[0] == 0
    assert "no context 'nowhere'; known: here, there" in kubectl_prism("status", "demo", "--context", "nowhere")[2]


@pytest.mark.parametrize(("asked", "hint"), [("dmeo", "did you mean 'demo'?"), ("zzz", "; there are: demo")])
def test_a_name_that_is_not_there_gets_a_hint(api, asked, hint):
    api.put_run(running(cluster_run()))
    code, _, err = kubectl_prism("status", asked)
    assert code == 1 and hint in err


def test_a_name_that_is_elsewhere_is_found_there(api):
    api.put_run(running(cluster_run()), namespace="elsewhere")
    assert "give -n elsewhere" in kubectl_prism("logs", "demo")[2]


def test_the_name_kubectl_prints_is_taken(api):
    api.put_run(running(cluster_run()))
    assert kubectl_prism("status", "prismrun.prism.dev/demo")[0] == 0


COMMANDS = [
    ("status",),
    ("status", "demo"),
    ("logs", "demo"),
    ("suspend", "demo"),
    ("resume", "demo"),
    ("retry", "demo"),
    ("report", "demo"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_kubeconfig_is_a_sentence(api, monkeypatch, tmp_path, command):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    code, _, err = kubectl_prism(*command)
    assert code == 1 and err.startswith("prism: there is no kubeconfig") and err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_that_is_not_there_is_a_sentence(api, tmp_path, monkeypatch, command):
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "dead", "http://127.0.0.1:1")))
    code, _, err = kubectl_prism(*command)
    assert code == 1 and "(http://127.0.0.1:1) cannot be reached: Connection refused" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_cluster_without_prismruns_is_a_sentence(api, command):
    api.refuse = lambda method, path: (404, b"404 page not found\n")
    code, _, err = kubectl_prism(*command)
    assert code == 1 and "does not know PrismRuns" in err


def test_a_damaged_kubeconfig_is_a_sentence(api, tmp_path):
    (tmp_path / "kubeconfig").write_text("contexts: [")
    code, _, err = kubectl_prism("status")
    assert code == 1 and "cannot be used" in err


def test_a_right_that_is_missing_is_a_sentence(api):
    api.put_run(running(cluster_run()))
    message = (
        'prismruns.prism.dev is forbidden: User "jane" cannot patch resource "prismruns" in API group "prism.dev" in the namespace "team"'
    )
    api.refuse = lambda method, path: status(403, "Forbidden", message) if method == "PATCH" else None
    assert "'jane' may not patch prismruns.prism.dev in namespace 'team'" in kubectl_prism("suspend", "demo")[2]


def test_suspend_asks_once_and_says_what_happens(api):
    api.put_run(running(cluster_run(deadlines={"stopGraceSeconds": 33})))
    code, out, _ = kubectl_prism("suspend", "demo")
    assert code == 0 and "attempt 1 of stage 'sft' has 33 s to save a checkpoint" in out
    kubectl_prism("suspend", "demo")
    assert api.sent("PATCH") == [{"spec": {"suspend": True}}]


def test_suspend_waits_until_the_operator_says_so_of_this_spec(api, monkeypatch):
    monkeypatch.setattr(wishes, "POLL_SECONDS", 0.01)
    builder = cluster_run(suspend=True)
    old = running(cluster_run())
    api.put_run(old)
    reads = []

    def go_on(path):
        reads.append(path)
        if len(reads) == 5:
            stopped = {**builder.scene().status().to_dict(), "observedGeneration": 2}
            api.put_run({**builder.raw, "metadata": {"name": "demo", "generation": 2}, "status": stopped})

    api.after_read = go_on
    code, out, _ = kubectl_prism("suspend", "demo", "--wait")
    assert code == 0 and out.splitlines()[-1] == "demo is suspended; no pod of it is left" and len(reads) >= 5


def test_resume_takes_the_wish_back(api):
    api.put_run(running(cluster_run(suspend=True)))
    assert "goes on from its last checkpoint" in kubectl_prism("resume", "demo")[1]
    assert api.sent("PATCH") == [{"spec": {"suspend": False}}]


def test_a_finished_run_is_neither_suspended_nor_resumed(api):
    api.put_run(failed(cluster_run()))
    for command in ("suspend", "resume"):
        code, _, err = kubectl_prism(command, "demo")
        assert code == 1 and "is finished (Failed)" in err
    assert api.sent("PATCH") == []


def test_retry_creates_the_next_run_and_says_what_it_takes_over(api):
    api.put_run(failed(cluster_run()))
    api.put_run(cluster_run("demo-2").raw)
    code, out, _ = kubectl_prism("retry", "demo")
    assert code == 0 and out.startswith("demo-3 is made from demo\n  sft: taken over, ") and "  rlvr: starts anew" in out
    made = api.objects[f"{RUNS.format('team')}/demo-3"]
    assert made["spec"]["stages"][0]["checkpoint"]["digest"].startswith("sha256:")


def test_retry_takes_no_other_name_than_the_given(api):
    api.put_run(failed(cluster_run()))
    api.put_run(cluster_run("mine").raw)
    code, _, err = kubectl_prism("retry", "demo", "--name", "mine")
    assert code == 1 and "there is a run 'mine' already" in err
    assert kubectl_prism("retry", "demo", "--name", "yours")[0] == 0


def test_a_dry_run_of_retry_creates_nothing_and_prints_a_file(api):
    api.put_run(failed(cluster_run()))
    code, out, _ = kubectl_prism("retry", "demo", "--dry-run")
    assert code == 0 and yaml.safe_load(out)["metadata"]["name"] == "demo-2" and api.sent("POST") == []


def write(folder, builder):
    (folder / "run.yaml").write_text(yaml.safe_dump(builder.raw, sort_keys=False))


def test_validate_asks_the_server_without_storing_anything(api, tmp_path):
    write(tmp_path, cluster_run())
    code, out, _ = kubectl_prism("validate", "--server", "run.yaml")
    assert (code, out) == (0, "run.yaml: valid, also for the API server; stages sft, rlvr\n")
    assert [(method, query) for method, _, query, _ in api.requests if method != "GET"] == [
        ("POST", {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "kubectl-prism"})
    ]
    assert DEMO not in api.objects


def test_validate_tries_an_update_where_the_run_exists(api, tmp_path):
    api.put_run(running(cluster_run()))
    write(tmp_path, cluster_run(seed=7))
    assert kubectl_prism("validate", "--server", "run.yaml")[0] == 0
    sent = api.sent("PUT")[0]
    assert sent["spec"]["seed"] == 7 and sent["metadata"]["resourceVersion"] == "1"


def test_what_the_server_refuses_has_the_line_it_stands_on(api, tmp_path):
    write(tmp_path, cluster_run())
    causes = [{"reason": "FieldValueInvalid", "field": "spec.seed", "message": 'Invalid value: "object": no'}]
    causes[0]["field"] = "spec.storage"
    api.refuse = lambda method, path: status(422, "Invalid", "is invalid", causes=causes) if method == "POST" else None
    code, out, err = kubectl_prism("validate", "--server", "run.yaml")
    line = (tmp_path / "run.yaml").read_text().splitlines().index("  storage:") + 1
    assert (code, out, err) == (1, f"run.yaml:{line}: spec.storage: no\n", "prism: 1 problem\n")


def test_problems_of_the_file_are_told_without_asking(api, tmp_path):
    write(tmp_path, make_run().stage("sft"))
    code, out, _ = kubectl_prism("validate", "--server", "run.yaml")
    assert code == 1 and "a folder of one machine means nothing on a cluster" in out and api.requests == []


def test_kubectl_prism_validates_for_a_cluster(api, tmp_path):
    write(tmp_path, cluster_run())
    assert kubectl_prism("validate", "run.yaml")[0] == 0
    assert "spec.storage" in CliRunner().invoke(app, ["validate", "run.yaml"]).stdout


def test_new_writes_for_a_cluster_what_a_cluster_carries_out(api, tmp_path):
    code, out, _ = kubectl_prism("new", "mine.yaml", "--name", "mine")
    assert code == 0 and "kubectl prism validate --server mine.yaml" in out
    document = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert "pvc" in document["spec"]["storage"] and "runs/" not in (tmp_path / "mine.yaml").read_text()
    assert kubectl_prism("validate", "--server", "mine.yaml")[0] == 0


def test_the_papers_sizes_are_not_for_one_machine(api):
    assert "size 4b takes the GPUs of a cluster" in kubectl_prism("new", "--size", "4b", "--for", "local")[2]


LABELS = {RUN_LABEL: "demo", STAGE_LABEL: "sft", ATTEMPT_LABEL: "1", "ray.io/node-type": "head"}


def line(second, text):
    return f"2026-01-01T12:00:{second:02d}.000000001Z {text}\n".encode()


def test_logs_are_the_stages_container_without_timestamps(api):
    api.put_run(running(cluster_run()))
    api.put_pod("demo-sft-a1-head", LABELS, {"ray-head": {"running": {}}, "stage-sft": {"running": {}}})
    api.logs["demo-sft-a1-head"] = lambda: iter([line(1, "step 1"), line(2, "step 2")])
    assert kubectl_prism("logs", "demo")[:2] == (0, "step 1\nstep 2\n")
    assert api.requests[-1][2]["container"] == "stage-sft"


def test_logs_of_another_container_are_those_of_the_head_pod(api):
    api.put_run(running(cluster_run()))
    api.put_pod("p", LABELS, {"ray-head": {"running": {}}, "stage-sft": {"running": {}}})
    api.logs["p"] = lambda: iter([line(1, "ray")])
    assert kubectl_prism("logs", "demo", "-c", "ray-head")[1] == "ray\n" and api.requests[-1][2]["container"] == "ray-head"
    assert "no container 'ray-haed'; did you mean 'ray-head'?" in kubectl_prism("logs", "demo", "-c", "ray-haed")[2]


def test_an_attempt_whose_pods_are_gone_says_where_its_log_is(api):
    api.put_run(failed(cluster_run()))
    code, _, err = kubectl_prism("logs", "demo")
    assert code == 1
    assert "its log is team/demo/stages/rlvr/attempt-1/log.txt in PersistentVolumeClaim 'runs'" in err
    assert "It ended Failed (UserError): it broke." in err


def test_a_container_that_has_not_started_says_why(api):
    raw = running(cluster_run())
    raw["status"]["message"] = "Pod x: 0/1 nodes are available."
    api.put_run(raw)
    api.put_pod("x", LABELS, {"stage-sft": {"waiting": {"reason": "ContainerCreating"}}}, phase="Pending")
    code, _, err = kubectl_prism("logs", "demo")
    assert code == 1 and "has not started (pod x, ContainerCreating). Pod x: 0/1 nodes are available." in err


def test_a_stage_that_does_not_exist_gets_a_hint(api):
    api.put_run(running(cluster_run()))
    assert "no stage 'sfft'; did you mean 'sft'?" in kubectl_prism("logs", "demo", "--stage", "sfft")[2]
    assert "no log of stage 'rlvr' yet" in kubectl_prism("logs", "demo", "--stage", "rlvr")[2]


def test_following_goes_on_after_a_broken_connection_without_losing_or_repeating_a_line(api, monkeypatch):
    from prism_operator.kubectl import logs

    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    builder = cluster_run()
    api.put_run(running(builder))
    api.put_pod("p", LABELS, {"stage-sft": {"running": {}}})
    times = []

    def serve():
        times.append(1)
        yield line(1, "one")
        yield line(2, "two")
        if len(times) == 1:
            raise ConnectionResetError
        yield line(2, "two").replace(b"001Z two", b"002Z three")
        api.put_pod("p", LABELS, {"stage-sft": {"terminated": {"exitCode": 1}}})
        api.put_run(failed(builder))

    api.logs["p"] = serve
    code, out, err = kubectl_prism("logs", "demo", "-f")
    assert (code, out, len(times)) == (0, "one\ntwo\nthree\n", 2)
    assert "the pods of attempt 1 of stage 'rlvr' are gone" in err


def test_following_says_when_the_next_attempt_begins_and_ends_with_the_run(api, monkeypatch):
    from prism_operator.kubectl import logs

    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    builder = cluster_run()
    api.put_run(running(builder))
    api.put_pod("p1", LABELS, {"stage-sft": {"running": {}}})

    def first():
        yield line(1, "first")
        api.put_pod("p1", LABELS, {"stage-sft": {"terminated": {}}})
        scene = builder.scene().attempt("sft", 1, failed="NodeLost").live("sft", 2)
        api.put_run({**builder.raw, "status": scene.status().to_dict()})
        api.put_pod("p2", {**LABELS, ATTEMPT_LABEL: "2"}, {"stage-sft": {"running": {}}})

    def second():
        yield line(5, "second")
        api.put_pod("p2", {**LABELS, ATTEMPT_LABEL: "2"}, {"stage-sft": {"terminated": {}}})
        api.put_run(failed(builder))

    api.logs.update(p1=first, p2=second)
    code, out, err = kubectl_prism("logs", "demo", "-f", "--stage", "sft")
    assert (code, out) == (0, "first\nsecond\n")
    assert [line for line in err.splitlines() if "pod p" in line] == [
        "prism: attempt 1 of stage 'sft', pod p1",
        "prism: attempt 2 of stage 'sft', pod p2",
    ]


@pytest.mark.parametrize("algorithm", ["grpo", "gspo"])
def test_what_new_writes_for_a_cluster_is_carried_out_there_and_explained(algorithm):
    text = write_prismrun(None, "tiny", algorithm, "demo", "cluster")
    parsed = parse_run(read_source(text).raw)
    refused = cluster_problems(parsed.run)
    assert parsed.problems == () and plan_problems(parsed.run) == []
    assert all("algorithm" in str(problem) for problem in refused) and (algorithm != "grpo" or refused == [])
    lines = text.splitlines()
    set_first = {}
    for each in lines[lines.index("spec:") :]:
        if match := re.match(r"\s*-?\s*([a-zA-Z]+): *[^\s#]", each):
            set_first.setdefault(match[1], each)
    assert [each.strip() for each in set_first.values() if "#" not in each] == ["- kind: sft"]
    assert all(len(each) <= 140 and each == each.rstrip() for each in lines)
