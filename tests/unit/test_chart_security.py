"""The chart gives the operator what it needs and not more: verbs, pods, tokens."""

import json
import re

import pytest

from helm_chart import CHART, EVERYTHING, NAMESPACE, of_kind, pods, render, the

NAMESPACED = {"watchNamespaces": ["team-a", "team-b"]}
VERBS = {
    ("", "events"): "create",
    ("", "pods"): "delete list watch",
    ("prism.dev", "prismruns"): "delete get list patch watch",
    ("prism.dev", "prismruns/finalizers"): "update",
    ("prism.dev", "prismruns/status"): "patch",
    ("ray.io", "rayclusters"): "create delete get list watch",
}
"""In the namespaces of the runs. Whoever changes this changes what a stolen operator token is worth."""
CLUSTER_WIDE = {**VERBS, ("apiextensions.k8s.io", "customresourcedefinitions"): "list watch"}
EDIT = {
    ("prism.dev", "prismruns"): "create delete deletecollection get list patch update watch",
    ("prism.dev", "prismruns/status"): "get",
    ("", "pods"): "get list watch",
    ("", "pods/log"): "get",
}
VIEW = {
    ("prism.dev", "prismruns"): "get list watch",
    ("prism.dev", "prismruns/status"): "get list watch",
    ("", "pods"): "get list watch",
    ("", "pods/log"): "get",
}
MODES = pytest.mark.parametrize("values", [{}, EVERYTHING, {**EVERYTHING, **NAMESPACED}], ids=["default", "everything", "namespaced"])


def verbs(role):
    granted = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        granted |= {(group, resource): " ".join(sorted(rule["verbs"])) for group in rule["apiGroups"] for resource in rule["resources"]}
    return granted


def test_cluster_wide_the_operator_may_do_exactly_this():
    objects = render()
    assert verbs(the(objects, "ClusterRole")) == CLUSTER_WIDE


def test_the_readme_lists_the_same_verbs():
    rows = re.findall(r"^\| `([a-z/]+)` \| ([a-z, ]+)", (CHART / "README.md").read_text(), re.MULTILINE)
    assert {resource: " ".join(sorted(re.findall("[a-z]+", verbs))) for resource, verbs in rows} == {
        resource: verbs for (_, resource), verbs in VERBS.items()
    }


def test_namespaced_the_operator_may_do_exactly_this_in_each_namespace():
    roles = [role for role in of_kind(render(NAMESPACED), "Role") if role["metadata"]["name"] == "prism"]
    assert {role["metadata"]["namespace"]: verbs(role) for role in roles} == {"team-a": VERBS, "team-b": VERBS}


def test_namespaced_nothing_is_cluster_wide():
    assert not of_kind(render(NAMESPACED), "ClusterRole", "ClusterRoleBinding")


@MODES
def test_no_role_mentions_secrets_exec_wildcards_or_other_roles(values):
    forbidden = {"*", "secrets", "pods/exec", "roles", "rolebindings", "clusterroles", "clusterrolebindings", "serviceaccounts/token"}
    for role in of_kind(render(values), "Role", "ClusterRole"):
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & (forbidden | {"escalate", "bind", "impersonate"}), role["metadata"]["name"]


@MODES
def test_every_role_of_the_operator_is_bound_to_its_account_alone(values):
    objects = render(values)
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        account = "prism-test" if binding["metadata"]["name"] == "prism-test" else "prism"
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
        [_] = [
            role
            for role in of_kind(objects, binding["roleRef"]["kind"])
            if (role["metadata"]["name"], role["metadata"].get("namespace"))
            == (binding["roleRef"]["name"], binding["metadata"].get("namespace"))
        ]


def test_peoples_roles_add_to_kubernetes_own():
    objects = render()
    edit, view = the(objects, "ClusterRole", "prism-edit"), the(objects, "ClusterRole", "prism-view")
    assert (verbs(edit), verbs(view)) == (EDIT, VIEW)
    aggregated = [{key.rpartition("/")[2] for key in role["metadata"]["labels"] if "aggregate-to" in key} for role in (edit, view)]
    assert aggregated == [{"aggregate-to-admin", "aggregate-to-edit"}, {"aggregate-to-view"}]


def test_the_test_account_may_make_a_prismrun_and_nothing_else():
    objects = render()
    assert verbs(the(objects, "Role", "prism-test")) == {("prism.dev", "prismruns"): "create"}


def test_a_token_is_mounted_only_where_a_pod_asks_for_it():
    objects = render(EVERYTHING)
    assert {account["automountServiceAccountToken"] for account in of_kind(objects, "ServiceAccount")} == {False}
    assert {pod["automountServiceAccountToken"] for _, pod in pods(objects)} == {True}


def test_an_account_of_ones_own_is_used_everywhere():
    objects = render({"serviceAccount": {"create": False, "name": "mine"}})
    assert the(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert the(objects, "Pod", "prism-test-operator")["spec"]["serviceAccountName"] == "mine"
    assert the(objects, "ClusterRoleBinding")["subjects"][0]["name"] == "mine"


@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, {**EVERYTHING, **NAMESPACED}, {"runAsUser": None}], ids=["default", "everything", "namespaced", "no uid"]
)
def test_every_pod_passes_pod_security_restricted(values):
    assert [problem for metadata, pod in pods(render(values)) for problem in problems_under_restricted(pod)] == []


def test_every_container_has_a_read_only_root_a_memory_limit_and_no_cpu_limit():
    for _, pod in pods(render(EVERYTHING)):
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["limits"]) == {"memory"}


def test_the_platform_may_choose_the_user_id():
    spec = the(render({"runAsUser": None}), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    large = the(render({"runAsUser": 1000650000}), "Deployment")["spec"]["template"]["spec"]
    assert large["securityContext"]["runAsUser"] == 1000650000


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"securityContext": {}}, "runAsNonRoot"),
        ({"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}]}, "volume etc"),
        ({"containers": [{"name": "c", "securityContext": {"privileged": True}}]}, "privileged"),
        ({"containers": [{"name": "c", "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}]}, "adds SYS_ADMIN"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_the_checker_of_pod_security_finds_what_is_wrong(change, problem):
    [(_, pod), *_] = pods(render())
    assert any(problem in found for found in problems_under_restricted({**pod, **change}))


VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def problems_under_restricted(pod):
    """The controls of the Pod Security Standard `restricted`, as far as a pod without Windows can break them."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [f"volume {volume['name']}" for volume in pod.get("volumes", []) if not set(volume) - {"name"} <= VOLUMES]
    own = pod.get("securityContext", {})
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = {**own, **container.get("securityContext", {})}
        capabilities = context.get("capabilities", {})
        added = set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}
        found += [
            f"{container['name']}: {problem}"
            for problem, holds in {
                "runAsNonRoot is not true": context.get("runAsNonRoot") is not True,
                "runs as root": context.get("runAsUser") == 0,
                "allowPrivilegeEscalation is not false": context.get("allowPrivilegeEscalation") is not False,
                "privileged": bool(context.get("privileged")),
                "does not drop ALL": "ALL" not in capabilities.get("drop", []),
                f"adds {', '.join(sorted(added))}": bool(added),
                "no seccomp profile": context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
                "host port": any("hostPort" in port for port in container.get("ports", [])),
            }.items()
            if holds
        ]
    return found
