"""What a real API server says to the chart's objects, to the rules of a site, and to the checks of `helm test`. No node is needed."""

import importlib.util
import json
import os
import subprocess
from base64 import b64decode

import pytest
import yaml

from cluster.harness.build import kuberay_crds
from cluster.harness.commands import wait_until
from helm_chart import CHART, EVERYTHING, NAMESPACE, helm, kubectl_binary, manifest, of_kind, pods, render, the

RUN = json.loads((CHART / "files/tests/sample.json").read_text())
TEAMS = ("team-a", "team-b")
DIGEST = "@sha256:" + "0" * 64
GOOD_IMAGE = "registry.example.com/team/prism-sft" + DIGEST
RULES = {"allowedRegistries": ["registry.example.com/team"], "requireDigest": True, "maxGpus": 8}
NEEDS_OTHER_KINDS = ("ServiceMonitor", "PrometheusRule")


@pytest.fixture(scope="module")
def kubectl(api_only):
    """Runs it against the API server; the finished process."""

    def call(*arguments, document=None, check=True):
        text = document if isinstance(document, str) else yaml.safe_dump_all(document if isinstance(document, list) else [document])
        environment = {**os.environ, "KUBECONFIG": str(api_only.kubeconfig())}
        done = subprocess.run([kubectl_binary(), *arguments], input=text, capture_output=True, text=True, env=environment)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    for namespace in (NAMESPACE, *TEAMS):
        call("apply", "-f", "-", document={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    call("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "files/crds/prismruns.prism.dev.yaml"))
    wait_until_served(call, "prismruns")
    return call


def wait_until_served(kubectl, resource):
    """`kubectl wait` fails where a definition has no condition yet."""
    wait_until(lambda: kubectl("get", resource, check=False).returncode == 0, f"{resource} are served", seconds=30)


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, {**EVERYTHING, "watchNamespaces": list(TEAMS)}, {"rbac": {"create": False}, "runAsUser": None}],
    ids=["default", "everything", "namespaced", "without rights and uid"],
)
def test_the_api_server_takes_every_object_of_the_chart(kubectl, values):
    objects = [found for found in render(values) if found["kind"] not in NEEDS_OTHER_KINDS]
    # a pod is asked for its account, also in a dry run
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", document=of_kind(objects, "ServiceAccount"))
    answer = kubectl("apply", "--dry-run=server", "--validate=strict", "--force-conflicts", "--server-side", "-f", "-", document=objects)
    assert answer.stdout.count("(server dry run)") == len(objects)
    assert "Warning" not in answer.stderr, answer.stderr


def test_the_pods_are_admitted_where_pod_security_restricted_is_enforced(kubectl):
    label = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chart-restricted", "labels": label}}
    kubectl("apply", "-f", "-", document=namespace)
    kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", "chart-restricted", "--timeout=30s")
    for metadata, spec in pods(render()):
        bare = {key: value for key, value in spec.items() if key != "serviceAccountName"}
        pod = {"metadata": {"name": "p", "namespace": "chart-restricted", "labels": metadata["labels"]}, "spec": bare}
        kubectl("create", "--dry-run=server", "-f", "-", document={"apiVersion": "v1", "kind": "Pod", **pod})
        risky = {**pod, "spec": {**bare, "hostNetwork": True}}
        refused = kubectl("create", "--dry-run=server", "-f", "-", document={"apiVersion": "v1", "kind": "Pod", **risky}, check=False)
        assert "violates PodSecurity" in refused.stderr


@pytest.fixture(scope="module")
def site_rules(kubectl):
    """The policy of a site, in a namespace of its own; an older run that would break it is there already."""
    namespace = "chart-site-rules"
    kubectl("apply", "-f", "-", document={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    kubectl("apply", "-f", "-", document=prism_run(namespace, "older", image="elsewhere.example.com/x:1"))
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    values = {"admissionPolicy": {"enabled": True, "namespaceSelector": selector, **RULES}}
    policy = manifest(values, "--show-only", "templates/admissionpolicy.yaml", release="site")
    kubectl("apply", "-f", "-", document=policy)
    wait_for_the_policy(kubectl, namespace)
    yield namespace
    kubectl("delete", "-f", "-", document=policy)
    kubectl("delete", "prismrun", "older", "--namespace", namespace)


def wait_for_the_policy(kubectl, namespace):
    """The API server reads policies from its own watch, some hundred milliseconds later."""
    bad = prism_run(namespace, "probe", image="elsewhere.example.com/x:1")
    create = ("create", "--dry-run=server", "-f", "-")
    wait_until(lambda: kubectl(*create, document=bad, check=False).returncode != 0, "The API server applies the policy", seconds=30)


def prism_run(namespace, name, **spec):
    return {**RUN, "metadata": {"name": name, "namespace": namespace}, "spec": {**RUN["spec"], **spec}}


def stage(**fields):
    return {"stages": [{**RUN["spec"]["stages"][0], **fields}]}


def short(value):
    return json.dumps(value).replace(DIGEST, "@digest") if isinstance(value, dict) else ""


def template(**spec):
    return {"podTemplate": {"spec": spec}}


def container(**fields):
    return template(containers=[{"name": "stage", **fields}])


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"image": GOOD_IMAGE},
        stage(image=GOOD_IMAGE),
        container(image=GOOD_IMAGE),
        {"resources": {"nodes": 2, "gpusPerNode": 4}},
        {"resources": {"workers": 1, "gpusPerNode": 4}},
        {"resources": {"nodes": 4, "gpusPerNode": 4}, **stage(resources={"nodes": 1})},
        stage(resources={"gpusPerNode": 16}, checkpoint={"uri": "sft"}),
        template(hostNetwork=False),
        template(nodeSelector={"pool": "gpu"}, volumes=[{"name": "scratch", "emptyDir": {}}]),
        container(resources={"limits": {"memory": "1Gi"}}, securityContext={"privileged": False}),
        {"podTemplate": {"metadata": {"annotations": {"team": "ml"}}}},
    ],
    ids=short,
)
def test_runs_within_the_rules_of_the_site_are_made(kubectl, site_rules, spec):
    kubectl("create", "--dry-run=server", "-f", "-", document=prism_run(site_rules, "within", **spec))


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"image": "elsewhere.example.com/x" + DIGEST}, "use one from registry.example.com/team/"),
        ({"image": "registry.example.com/teams/x" + DIGEST}, "is not from a registry allowed here"),
        ({"image": "registry.example.com/team/x:1"}, "write it as <image>@sha256:<digest>"),
        (stage(image="x:1"), "the image x:1 is not from a registry allowed here"),
        (container(image="x:1"), "a podTemplate names an image that is not from a registry"),
        (container(image="registry.example.com/team/x:1"), "a podTemplate names an image without its digest"),
        (stage(**template(initContainers=[{"name": "i", "image": "x"}])), "a podTemplate names an image"),
        ({"resources": {"nodes": 4, "gpusPerNode": 4}}, "a stage asks for 16 GPUs, allowed here are 8"),
        ({"resources": {"gpusPerNode": 8}, **stage(resources={"nodes": 2})}, "a stage asks for 16 GPUs"),
        ({"resources": {"gpusPerNode": 8, "workers": 1}}, "a stage asks for 16 GPUs"),
        (container(resources={"limits": {"nvidia.com/gpu": "8"}}), "give them in resources.gpusPerNode"),
        (template(volumes=[{"name": "etc", "hostPath": {"path": "/etc"}}]), "hostPath, hostNetwork, hostPID or hostIPC"),
        (stage(**template(hostPID=True)), "hostPath, hostNetwork, hostPID or hostIPC"),
        (container(securityContext={"privileged": True}), "a privileged container or a host port"),
        (container(ports=[{"containerPort": 80, "hostPort": 80}]), "a privileged container or a host port"),
    ],
    ids=short,
)
def test_runs_beyond_the_rules_of_the_site_are_refused_with_a_sentence(kubectl, site_rules, spec, words):
    refused = kubectl("create", "--dry-run=server", "-f", "-", document=prism_run(site_rules, "beyond", **spec), check=False)
    assert "ValidatingAdmissionPolicy" in refused.stderr
    assert words in refused.stderr


def test_a_run_older_than_the_rules_can_be_labelled_but_not_given_a_new_spec_that_breaks_them(kubectl, site_rules):
    kubectl("label", "prismrun", "older", "note=kept", "--namespace", site_rules, "--overwrite")
    patch = json.dumps({"spec": {"ttlSecondsAfterFinished": 7}})
    refused = kubectl("patch", "prismrun", "older", "--namespace", site_rules, "--type=merge", "-p", patch, check=False)
    assert "is not from a registry allowed here" in refused.stderr


@pytest.fixture(scope="module")
def kuberay(kubectl):
    """Its definition of a RayCluster; nobody carries one out here."""
    if kubectl("get", "crd", "rayclusters.ray.io", check=False).returncode == 0:
        return
    [definition] = kuberay_crds().glob("*rayclusters*")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definition))
    wait_until_served(kubectl, "rayclusters")


@pytest.fixture
def checks(kubectl, kuberay, tmp_path, monkeypatch):
    """check.py of `helm test`, as the given account; its exit code."""
    rights = ("ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding")
    objects = of_kind(render(release="checks"), *rights)
    kubectl("apply", "-f", "-", document=objects)
    spec = importlib.util.spec_from_file_location("chart_check", CHART / "files/tests/check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flat = kubectl("config", "view", "--raw", "--flatten", "--minify", "--output", "json").stdout
    cluster = json.loads(flat)["clusters"][0]["cluster"]
    host, port = cluster["server"].removeprefix("https://").split(":")
    for name, content in the(render(), "ConfigMap", "prism-test")["data"].items():
        (tmp_path / name).write_text(content)
    (tmp_path / "ca.crt").write_bytes(b64decode(cluster["certificate-authority-data"]))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setenv("SAMPLE_NAMESPACE", NAMESPACE)
    monkeypatch.setattr(module, "ACCOUNT", tmp_path)
    monkeypatch.setattr(module, "HERE", tmp_path)

    def run(which, account):
        (tmp_path / "token").write_text(kubectl("create", "token", account, "--namespace", NAMESPACE).stdout.strip())
        return module.main(which)

    yield run
    kubectl("delete", "--ignore-not-found", "-f", "-", document=objects)


def test_helm_test_passes_with_the_rights_that_the_chart_gives(checks, capsys):
    assert checks("operator", "checks-prism") == 0
    assert checks("sample", "checks-prism-test") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok      ray.io/v1 RayCluster is served" in lines
    assert f"ok      a PrismRun would be accepted in {NAMESPACE}" in lines


def test_helm_test_names_every_right_that_is_missing(checks, kubectl, capsys):
    kubectl("delete", "clusterrolebinding", "checks-prism")
    assert checks("operator", "checks-prism") == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    asked = json.loads(the(render(), "ConfigMap", "prism-test")["data"]["access.json"])
    assert len(failed) == len(asked)
    assert any("may not patch prismruns/status in all namespaces" in line for line in failed)


def test_helm_test_says_why_a_prismrun_was_not_accepted(checks, capsys):
    assert checks("sample", "checks-prism") == 1
    assert 'cannot create resource "prismruns"' in capsys.readouterr().out


def test_the_crd_and_the_runs_outlive_the_release_and_another_takes_them_over_only_when_asked(kubectl, api_only):
    def release(*arguments, check=True):
        return helm(*arguments, "--namespace", NAMESPACE, kubeconfig=api_only.kubeconfig(), check=check)

    # as after a `kubectl apply` of the CRD, which this module began with
    release("install", "first", str(CHART), "--take-ownership")
    kubectl("apply", "-f", "-", document=prism_run(TEAMS[0], "survivor", suspend=True))
    release("uninstall", "first")
    kubectl("get", "prismrun", "survivor", "--namespace", TEAMS[0])
    assert "invalid ownership metadata" in release("install", "second", str(CHART), check=False).stderr
    release("install", "second", str(CHART), "--take-ownership")
    release("uninstall", "second")
    kubectl("delete", "prismrun", "survivor", "--namespace", TEAMS[0], "--timeout=30s")
