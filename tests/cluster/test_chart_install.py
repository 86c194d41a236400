"""The chart on a real cluster with the operator's real image, from `helm install` to `helm uninstall`, by the lines of its README."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.harness.commands import wait_until
from helm_chart import CHART, NAMESPACE, ROOT, helm_binary, kubectl_binary

README = (CHART / "README.md").read_text()
GOLDEN = Path(__file__).parent / "golden"
RUNS = "prism-chart-runs"
RUN = json.loads((CHART / "files/tests/sample.json").read_text())
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def image_values(cluster):
    """The images of this cluster, in place of a registry's."""
    return {"image": _image(cluster.operator_image), "stages": {"image": _image(cluster.trainer_image)}}


def _image(name):
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}


def commands(heading):
    """The command lines of the first block of code under a heading of the chart's README."""
    block = re.search(rf"^## {heading}\n(?:(?!    )[^\n]*\n)*((?:    [^\n]*\n)+)", README, re.MULTILINE)[1]
    return [line.strip() for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def sh(cluster, tmp_path_factory):
    """Runs a line of the README, or any other helm or kubectl line, on the cluster; what it printed. `values` go into helm's line."""
    folder = tmp_path_factory.mktemp("chart")
    programs = {"helm": helm_binary(), "kubectl": kubectl_binary()}
    environment = {**os.environ, **cluster.environment, "HELM_CACHE_HOME": str(folder)}

    def run(line, *, values=None, document=None, check=True):
        name, *arguments = shlex.split(line)
        if values is not None:
            (folder / "values.yaml").write_text(yaml.safe_dump(values))
            arguments += ["--values", str(folder / "values.yaml")]
        done = subprocess.run(
            [programs[name], *arguments],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


def install(sh, cluster):
    """The README's first line, with images that this cluster has in place of the registry; what helm printed."""
    line, *_ = commands("Install")
    return sh(re.sub(r"--set \S+\.registry=\S+", "", line), values=image_values(cluster))


def uninstall(sh):
    """The README's line; nothing happens where no release is."""
    [line] = commands("Uninstall")
    sh(f"{line} --wait --timeout 2m --ignore-not-found")


def give_crd_to_helm(sh):
    """Where somebody applied it by hand, helm would not touch it."""
    if sh("kubectl get crd prismruns.prism.dev --ignore-not-found --output name"):
        sh("kubectl label crd prismruns.prism.dev app.kubernetes.io/managed-by=Helm --overwrite")
        owner = f"meta.helm.sh/release-name=prism meta.helm.sh/release-namespace={NAMESPACE}"
        sh(f"kubectl annotate crd prismruns.prism.dev {owner} --overwrite")


def make_namespace(sh, name):
    sh("kubectl apply -f -", document={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})


def make_run(sh, name):
    """A suspended one: it is taken in, and no stage starts."""
    document = {**RUN, "metadata": {"name": name, "namespace": RUNS}, "spec": {**RUN["spec"], "suspend": True}}
    sh("kubectl apply -f -", document=document)
    return uid(sh, name)


def uid(sh, name):
    return sh(f"kubectl --namespace {RUNS} get prismrun {name} --output jsonpath={{.metadata.uid}}")


def wait_until_taken_in(sh, name):
    sh(f"kubectl --namespace {RUNS} wait --for=condition=Suspended prismrun/{name} --timeout=60s")


@pytest.fixture(scope="module")
def installed(sh, cluster):
    """The release `prism`; its namespace lets nothing in that is not restricted. What `helm install` printed."""
    for namespace in (NAMESPACE, RUNS):
        make_namespace(sh, namespace)
    uninstall(sh)
    give_crd_to_helm(sh)
    printed = install(sh, cluster)
    _, rollout, _ = commands("Install")
    sh(f"{rollout} --timeout=120s")
    yield printed
    uninstall(sh)
    sh(f"kubectl delete namespace {RUNS} --ignore-not-found --timeout=60s")


def test_the_notes_find_kuberay_and_say_how_to_go_on(installed):
    assert "KubeRay is missing" not in installed
    assert f"helm -n {NAMESPACE} test prism" in installed


def test_the_operator_stays_ready(installed, sh):
    pods = json.loads(sh(f"kubectl --namespace {NAMESPACE} get pods --selector app.kubernetes.io/component=operator --output json"))
    [status] = [pod["status"] for pod in pods["items"]]
    [container] = status["containerStatuses"]
    assert (container["ready"], container["restartCount"]) == (True, 0)


def test_helm_test_passes_and_leaves_nothing(installed, sh):
    _, _, test = commands("Install")
    printed = sh(f"{test} --timeout 2m")
    phases = dict(re.findall(r"TEST SUITE:\s+(\S+)\n(?:.*\n){2}Phase:\s+(\w+)", printed))
    assert phases == dict.fromkeys(("prism-test", "prism-test-operator", "prism-test-sample"), "Succeeded")
    made = "pods,configmaps,roles,rolebindings,serviceaccounts"
    left = sh(f"kubectl --namespace {NAMESPACE} get {made} --selector app.kubernetes.io/component=test --output name")
    assert left == ""


def may(sh, account, namespace):
    """`kubectl auth can-i --list`, with the blanks between columns made even and the rows in order."""
    printed = sh(f"kubectl auth can-i --list --as=system:serviceaccount:{account} --namespace {namespace}")
    head, *rows = [re.sub(r"\s{2,}", "  ", line.strip()) for line in printed.splitlines() if not line.startswith("Warning")]
    return "\n".join([head, *sorted(rows)]) + "\n"


@pytest.mark.parametrize(
    "golden, account, namespace",
    [
        ("operator-where-runs-are.txt", f"{NAMESPACE}:prism", RUNS),
        ("operator-at-home.txt", f"{NAMESPACE}:prism", NAMESPACE),
        ("stage-pod.txt", f"{RUNS}:default", RUNS),
    ],
)
def test_an_account_may_do_exactly_what_its_golden_file_lists(installed, sh, golden, account, namespace):
    """PRISM_WRITE_GOLDEN=1 writes the file anew; look at what changed before you commit it."""
    found = may(sh, account, namespace)
    if os.environ.get("PRISM_WRITE_GOLDEN"):
        (GOLDEN / golden).write_text(found)
    assert found == (GOLDEN / golden).read_text()


@pytest.mark.parametrize(
    "role, verb, answer", [("edit", "create", "yes"), ("edit", "delete", "yes"), ("view", "list", "yes"), ("view", "create", "no")]
)
def test_kubernetes_own_roles_know_prismruns(installed, sh, role, verb, answer):
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"ann-{role}", "namespace": RUNS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"ann-{role}"}],
    }
    sh("kubectl apply -f -", document=binding)
    wait_until(lambda: sh("kubectl get clusterrole view --output json").count("prismruns") > 0, "The roles are added up", seconds=30)
    assert sh(f"kubectl auth can-i {verb} prismruns --as=ann-{role} --namespace {RUNS}", check=False).strip() == answer


def test_an_upgrade_replaces_the_operator_and_keeps_values_and_runs(installed, sh, cluster):
    before = make_run(sh, "upgraded")
    wait_until_taken_in(sh, "upgraded")
    [line] = commands("Upgrade")
    sh(f"{line} --set log.level=DEBUG --wait --timeout 2m")
    deployment = json.loads(sh(f"kubectl --namespace {NAMESPACE} get deployment prism --output json"))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    level = {entry["name"]: entry.get("value") for entry in container["env"]}["PRISM_LOG_LEVEL"]
    assert level == "DEBUG"
    assert container["image"] == cluster.operator_image, "values of the install are kept"
    assert uid(sh, "upgraded") == before
    sh(f"kubectl --namespace {RUNS} delete prismrun upgraded --timeout=60s")


def test_uninstall_loses_no_run_and_the_next_install_takes_them_over(installed, sh, cluster):
    before = make_run(sh, "kept")
    wait_until_taken_in(sh, "kept")
    uninstall(sh)
    assert sh(f"kubectl --namespace {NAMESPACE} get deployments --output name") == ""
    assert sh("kubectl get clusterrole prism --ignore-not-found --output name") == ""
    assert uid(sh, "kept") == before
    install(sh, cluster)
    sh(f"{commands('Install')[1]} --timeout=120s")
    sh(f'kubectl --namespace {RUNS} patch prismrun kept --type=merge --patch \'{{"spec": {{"ttlSecondsAfterFinished": 60}}}}\'')
    wait_until_taken_in(sh, "kept")
    sh(f"kubectl --namespace {RUNS} delete prismrun kept --timeout=60s")


def test_with_watch_namespaces_the_operator_works_there_and_may_do_nothing_elsewhere(installed, sh, cluster):
    uninstall(sh)
    values = {**image_values(cluster), "watchNamespaces": [RUNS], "crds": {"enabled": False}}
    try:
        sh(f"helm install team charts/prism --namespace {RUNS} --wait --timeout 2m", values=values)
        sh(f"helm test team --namespace {RUNS} --timeout 2m")
        make_run(sh, "namespaced")
        wait_until_taken_in(sh, "namespaced")
        sh(f"kubectl --namespace {RUNS} delete prismrun namespaced --timeout=60s")
        for question in ("list prismruns", "create rayclusters.ray.io", "list customresourcedefinitions", "list namespaces", "get secrets"):
            answer = sh(f"kubectl auth can-i {question} --as=system:serviceaccount:{RUNS}:team-prism --namespace default", check=False)
            assert answer.splitlines()[-1] == "no", question
    finally:
        sh(f"helm uninstall team --namespace {RUNS} --wait --timeout 2m --ignore-not-found")
