"""What the chart makes of which values. Real helm, no cluster."""

import json

import pytest

from helm_chart import CHART, EVERYTHING, KUBERNETES, NAMESPACE, helm, manifest, of_kind, operator_container, pods, refusal, render, the

NAMESPACED = {"watchNamespaces": ["team-a", "team-b"]}
DIGEST = "sha256:" + "0123456789abcdef" * 4
TEST_HOOKS = [
    ("ConfigMap", "prism-test"),
    ("Pod", "prism-test-operator"),
    ("Pod", "prism-test-sample"),
    ("Role", "prism-test"),
    ("RoleBinding", "prism-test"),
    ("ServiceAccount", "prism-test"),
]
DEFAULT = [
    ("ClusterRole", "prism"),
    ("ClusterRole", "prism-edit"),
    ("ClusterRole", "prism-view"),
    ("ClusterRoleBinding", "prism"),
    ("CustomResourceDefinition", "prismruns.prism.dev"),
    ("Deployment", "prism"),
    ("NetworkPolicy", "prism"),
    ("Service", "prism-metrics"),
    ("ServiceAccount", "prism"),
]
OPTIONAL = {
    ("ConfigMap", "prism-dashboard"),
    ("NetworkPolicy", "prism-stages"),
    ("PrometheusRule", "prism"),
    ("ServiceMonitor", "prism"),
    ("ValidatingAdmissionPolicy", "prism-site-rules"),
    ("ValidatingAdmissionPolicyBinding", "prism-site-rules"),
}


def names(objects):
    return sorted((found["kind"], found["metadata"]["name"]) for found in objects)


def environment(objects):
    return {entry["name"]: entry.get("value") for entry in operator_container(objects)["env"]}


def test_the_default_makes_these_objects_and_no_others():
    assert names(render()) == sorted(DEFAULT + TEST_HOOKS)


def test_optional_objects_are_made_when_asked_for():
    assert set(names(render(EVERYTHING))) - set(names(render())) == OPTIONAL


@pytest.mark.parametrize(
    "values, gone",
    [
        ({"crds": {"enabled": False}}, {("CustomResourceDefinition", "prismruns.prism.dev")}),
        ({"networkPolicy": {"enabled": False}}, {("NetworkPolicy", "prism")}),
        ({"metrics": {"service": {"enabled": False}}}, {("Service", "prism-metrics")}),
        ({"serviceAccount": {"create": False, "name": "mine"}}, {("ServiceAccount", "prism")}),
        ({"rbac": {"userRoles": False}}, {("ClusterRole", "prism-edit"), ("ClusterRole", "prism-view")}),
        (
            {"rbac": {"create": False}},
            {("ClusterRole", "prism"), ("ClusterRoleBinding", "prism")}
            | {hook for hook in TEST_HOOKS if hook[0] not in ("ConfigMap",) and hook[1] != "prism-test-operator"},
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_is_switched_off_is_left_out_and_nothing_else(values, gone):
    assert set(names(render())) - set(names(render(values))) == gone


@pytest.mark.parametrize("key", ["serviceMonitor", "prometheusRule"])
def test_what_needs_the_prometheus_operator_is_made_only_where_it_is_served(key):
    values = {"metrics": {key: {"enabled": True}}}
    kinds = {"serviceMonitor": "ServiceMonitor", "prometheusRule": "PrometheusRule"}
    assert not of_kind(render(values), kinds[key])
    assert of_kind(render(values, "--api-versions", "monitoring.coreos.com/v1"), kinds[key])


def test_a_service_monitor_brings_the_service_that_it_looks_at():
    objects = render({"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True, "force": True}}})
    wanted = the(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= the(objects, "Service", "prism-metrics")["metadata"]["labels"].items()


@pytest.mark.parametrize(
    "image, expected",
    [
        ({}, "prism-operator:0.1.0"),
        ({"tag": "1.2.3"}, "prism-operator:1.2.3"),
        ({"registry": "r.example.com:5000/team/"}, "r.example.com:5000/team/prism-operator:0.1.0"),
        ({"digest": DIGEST}, f"prism-operator@{DIGEST}"),
        ({"tag": "1.2.3", "digest": DIGEST, "registry": "r.example.com"}, f"r.example.com/prism-operator@{DIGEST}"),
    ],
)
def test_an_image_is_named_by_registry_repository_and_digest_before_tag(image, expected):
    objects = render({"image": image, "stages": {"image": image}})
    assert operator_container(objects)["image"] == expected
    assert {pod["containers"][0]["image"] for _, pod in pods(objects)} == {expected}, "the pods of helm test use the same"
    assert environment(objects)["PRISM_STAGE_IMAGE"] == expected.replace("prism-operator", "prism-trainer-cpu")


def test_the_registry_of_the_stages_image_is_that_of_all_images_of_stages():
    found = environment(render({"stages": {"image": {"registry": "r.example.com"}}}))
    images = {name: image for name, image in found.items() if name.endswith("_IMAGE")}
    assert len(images) == 4 and all(image.startswith("r.example.com/prism-") for image in images.values())


def test_the_operators_settings_arrive_in_its_environment():
    values = {
        **NAMESPACED,
        "log": {"format": "text", "level": "DEBUG"},
        "stages": {
            "image": {"pullPolicy": "Never"},
            "images": {"rl": {"registry": "r.example.com"}, "eval": {"digest": DIGEST, "tag": "1.0.0"}},
            "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
            "rayVersion": "2.61.0",
            "progressSeconds": 5,
        },
        "extraEnv": [{"name": "PRISM_WORKERS", "value": "4"}],
    }
    assert environment(render(values)) == {
        "POD_ID": None,
        "PRISM_POD_NAMESPACE": None,
        "PRISM_WATCH_NAMESPACES": "team-a,team-b",
        "PRISM_LOG_FORMAT": "text",
        "PRISM_LOG_LEVEL": "DEBUG",
        "PRISM_METRICS_PORT": "8080",
        "PRISM_HEALTH_PORT": "8081",
        "PRISM_STAGE_IMAGE": "prism-trainer-cpu:0.1.0",
        "PRISM_SFT_IMAGE": "prism-sft:0.1.0",
        "PRISM_RL_IMAGE": "r.example.com/prism-rl:0.1.0",
        "PRISM_EVAL_IMAGE": f"prism-eval@{DIGEST}",
        "PRISM_IMAGE_PULL_POLICY": "Never",
        "PRISM_IMAGE_PULL_SECRETS": "one,two",
        "PRISM_RAY_VERSION": "2.61.0",
        "PRISM_PROGRESS_SECONDS": "5",
        "PRISM_WORKERS": "4",
    }


@pytest.mark.parametrize("values", [{}, NAMESPACED, {"log": {"level": "WARNING"}, "stages": {"progressSeconds": 0.5}}], ids=json.dumps)
def test_the_operator_understands_the_environment_it_is_given(values):
    from prism_operator.settings import PREFIX, Settings, read_settings

    given = {name: value for name, value in environment(render(values)).items() if value is not None}
    settings = read_settings(given)
    assert settings.watch_namespaces == tuple(values.get("watchNamespaces", ()))
    assert {name.removeprefix(PREFIX).lower() for name in given} <= set(Settings.model_fields)


def test_one_operator_at_a_time():
    spec = the(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operators_pod_can_be_placed():
    placement = {
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "imagePullSecrets": [{"name": "registry"}],
    }
    objects = render({**placement, "podLabels": {"team": "ml"}, "podAnnotations": {"note": "here"}})
    template = the(objects, "Deployment")["spec"]["template"]
    assert placement.items() <= template["spec"].items()
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["metadata"]["annotations"]["note"] == "here"
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for _, pod in pods(objects)), "helm test pulls the same image"


def test_labels_from_values_cannot_take_the_pod_from_its_deployment():
    template = the(render({"podLabels": {"app.kubernetes.io/name": "other"}}), "Deployment")["spec"]
    assert template["selector"]["matchLabels"].items() <= template["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    "release, values, expected",
    [
        ("prism", {}, "prism"),
        ("demo", {}, "demo-prism"),
        ("demo", {"nameOverride": "x"}, "demo-x"),
        ("demo", {"fullnameOverride": "y"}, "y"),
        ("a" * 50, {}, "a" * 40),
    ],
)
def test_objects_are_named_after_the_release(release, values, expected):
    assert of_kind(render(values, release=release), "Deployment")[0]["metadata"]["name"] == expected


def test_a_namespaced_object_says_its_namespace():
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    for found in render(EVERYTHING):
        expected = found["kind"] not in cluster_wide | policies
        assert ("namespace" in found["metadata"]) is expected, f"{found['kind']} {found['metadata']['name']}"


def test_the_crd_outlives_the_release_unless_told_otherwise():
    annotation = ("helm.sh/resource-policy", "keep")
    kept = the(render(), "CustomResourceDefinition", "prismruns.prism.dev")
    not_kept = the(render({"crds": {"keep": False}}), "CustomResourceDefinition", "prismruns.prism.dev")
    assert annotation in kept["metadata"]["annotations"].items()
    assert annotation not in not_kept["metadata"].get("annotations", {}).items()
    assert kept["spec"] == not_kept["spec"]


def test_rendering_twice_gives_the_same_bytes():
    assert manifest(EVERYTHING) == manifest(EVERYTHING)


@pytest.mark.parametrize("values", [{}, EVERYTHING, {**NAMESPACED, "rbac": {"create": False}}], ids=["default", "everything", "namespaced"])
def test_helm_lint_has_nothing_to_say(values):
    assert "0 chart(s) failed" in helm("lint", "--strict", "--kube-version", KUBERNETES, str(CHART), values=values).stdout


@pytest.mark.parametrize(
    "values, words",
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"image": {"tagg": "1"}}, "at '/image': additional properties 'tagg' not allowed"),
        ({"image": {"pullPolicy": "always"}}, "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ({"image": {"digest": "sha256:12"}}, "at '/image/digest'"),
        ({"log": {"level": "debug"}}, "value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        ({"watchNamespaces": "team-a"}, "at '/watchNamespaces': got string, want array"),
        ({"watchNamespaces": ["a", "a"]}, "items at 0 and 1 are equal"),
        ({"watchNamespaces": ["Team"]}, "at '/watchNamespaces/0'"),
        ({"imagePullSecrets": ["registry"]}, "at '/imagePullSecrets/0': got string, want object"),
        ({"runAsUser": 0}, "at '/runAsUser': minimum: got 0, want 1"),
        ({"resources": {"limits": {"memory": "1 GiB"}}}, "at '/resources/limits/memory'"),
        ({"admissionPolicy": {"actions": ["Refuse"]}}, "value must be one of 'Deny', 'Warn', 'Audit'"),
        ({"extraEnv": [{"name": "A", "valeu": "b"}]}, "additional properties 'valeu' not allowed"),
        ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, "at '/networkPolicy/apiServer/cidrs/0'"),
        ({"stages": {"networkPolicy": {"enabled": True}}}, "name the namespaces of your runs in one of them"),
        ({"admissionPolicy": {"enabled": True, "forbidHostAccess": False}}, "no rule is set; set allowedRegistries"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_with_their_place(values, words):
    assert words in refusal(values)


def test_the_chart_does_not_install_on_a_kubernetes_without_admission_policies():
    done = helm("template", "prism", str(CHART), "--kube-version", "1.29.9", check=False)
    assert "requires kubeVersion: >=1.30.0-0" in done.stderr


def test_the_chart_can_be_part_of_another():
    assert names(render({"global": {"anything": 1}})) == names(render())


def test_the_operators_policy_lets_out_to_dns_api_server_and_progress_only():
    values = {"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.0/24"], "ports": [6443]}}, **NAMESPACED}
    dns, api_server, progress = the(render(values), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert api_server == {"ports": [{"port": 6443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}
    assert progress["ports"] == [{"port": 8270, "protocol": "TCP"}]
    assert progress["to"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/managed-by": "prism"}
    assert progress["to"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["team-a", "team-b"]


def test_readers_of_metrics_can_be_limited_and_helm_test_stays_one_of_them():
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    objects = render({"networkPolicy": {"metricsFrom": [prometheus]}})
    _, metrics = the(objects, "NetworkPolicy")["spec"]["ingress"]
    given, tests = metrics["from"]
    assert given == prometheus
    assert all(tests["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items() for pod in of_kind(objects, "Pod"))


def test_stage_pods_are_reached_by_their_own_kind_and_by_the_operator():
    policies = of_kind(render({**NAMESPACED, "stages": {"networkPolicy": {"enabled": True}}}), "NetworkPolicy")
    stages = [policy for policy in policies if policy["metadata"]["name"] == "prism-stages"]
    assert [policy["metadata"]["namespace"] for policy in stages] == ["team-a", "team-b"]
    spec = stages[0]["spec"]
    own, operator = spec["ingress"]
    assert spec["policyTypes"] == ["Ingress"], "training pulls models and data, so the way out is free"
    assert own["from"] == [{"podSelector": spec["podSelector"]}]
    assert operator["ports"] == [{"port": 8270, "protocol": "TCP"}]
    assert operator["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}


def test_the_stages_way_out_can_be_limited_but_not_to_themselves():
    bucket = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    values = {**NAMESPACED, "stages": {"networkPolicy": {"enabled": True, "egress": [bucket]}}}
    spec = the([found for found in render(values) if found["metadata"].get("namespace") == "team-a"], "NetworkPolicy", "prism-stages")[
        "spec"
    ]
    dns, own, given = spec["egress"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert own == {"to": [{"podSelector": spec["podSelector"]}]}
    assert given == bucket
