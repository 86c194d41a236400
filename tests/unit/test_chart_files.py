"""What stands twice stands the same: CRD, values and their descriptions, metric names, the sample of `helm test`."""

import json
import re
import shutil
from importlib.metadata import version
from itertools import combinations

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from helm_chart import CHART, EVERYTHING, ROOT, helm, of_kind, render, the
from prism_operator.kube import metrics
from prism_operator.settings import Settings
from prism_operator.validate import validate_file

CRD = "prismruns.prism.dev.yaml"
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
README = (CHART / "README.md").read_text()


def comments(text):
    """The comment above each value, by its dotted name."""
    found, path, pending = {}, [], []
    for line in text.splitlines():
        if line.strip().startswith("#"):
            pending.append(line.strip("# "))
            continue
        if key := re.match(r"^( *)([A-Za-z]+):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            found[".".join(path)] = " ".join(pending)
        pending = []
    return found


def leaves(schema, path=()):
    """(dotted name, its schema) of every value that is not a group of others."""
    for name, inner in schema["properties"].items():
        if "properties" in inner:
            yield from leaves(inner, (*path, name))
        else:
            yield ".".join((*path, name)), inner


def value_of(name):
    found = yaml.safe_load(VALUES)
    for key in name.split("."):
        found = found[key]
    return found


LEAVES = {name: schema for name, schema in leaves(SCHEMA) if name != "global"}


def test_the_charts_crd_is_the_one_in_crds():
    assert (CHART / "files/crds" / CRD).read_text() == (ROOT / "crds" / CRD).read_text(), "run `make generate`"


def test_the_rendered_crd_is_the_same_object():
    rendered = the(render({"crds": {"keep": False}}), "CustomResourceDefinition", "prismruns.prism.dev")
    assert rendered == yaml.safe_load((ROOT / "crds" / CRD).read_text())


def test_the_chart_installs_this_version_of_the_operator():
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version("prism-operator")


@pytest.mark.parametrize(
    "value, field",
    [
        ("log.format", "log_format"),
        ("log.level", "log_level"),
        ("stages.rayVersion", "ray_version"),
        ("stages.progressSeconds", "progress_seconds"),
        ("stages.image.pullPolicy", "image_pull_policy"),
        ("watchNamespaces", "watch_namespaces"),
    ],
)
def test_a_value_and_the_operators_setting_have_the_same_default(value, field):
    default = Settings.model_fields[field].default
    assert value_of(value) == (list(default) if isinstance(default, tuple) else default)


def test_every_value_has_a_schema_and_every_schema_a_value():
    assert set(LEAVES) == {name for name in comments(VALUES) if name in LEAVES}
    assert {name.partition(".")[0] for name in LEAVES} == set(yaml.safe_load(VALUES))
    for name in LEAVES:
        value_of(name)


@pytest.mark.parametrize("name", LEAVES)
def test_a_value_is_described_in_the_same_words_in_values_schema_and_readme(name):
    assert comments(VALUES)[name], f"{name} has no comment in values.yaml"
    assert LEAVES[name]["description"] == comments(VALUES)[name]
    assert f"| `{name}` | `{json.dumps(value_of(name))}` | {comments(VALUES)[name]} |" in README.splitlines()


def test_the_readme_lists_no_value_that_does_not_exist():
    assert set(re.findall(r"^\| `([A-Za-z.]+)` \| `", README, re.MULTILINE)) == set(LEAVES)


def test_the_schema_refuses_unknown_names_in_every_group():
    def groups(schema):
        if "properties" in schema:
            yield schema
            for inner in schema["properties"].values():
                yield from groups(inner)

    assert [group.get("description") for group in groups(SCHEMA) if group.get("additionalProperties") is not False] == []


def rules():
    return [rule for group in the(render(EVERYTHING), "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]


def dashboard():
    return json.loads(the(render(EVERYTHING), "ConfigMap", "prism-dashboard")["data"]["prism.json"])


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels() for target in panel["targets"]]


def served():
    """The labels of every series that the operator serves, by its name."""
    found = {family.name: set(family._labelnames) for family in metrics.RUNS.describe()}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            parts = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
            found |= {family.name + part: set(metric._labelnames) for part in parts}
    return found


def test_alerts_and_panels_ask_for_series_that_the_operator_serves():
    """Any other name is an empty panel, or an alert that never fires."""
    for expression in expressions():
        asked = set(re.findall(r"\bprism_[a-z_]+", expression))
        assert asked and asked <= set(served()), expression


def test_alerts_and_panels_ask_for_labels_that_their_series_have():
    for expression in expressions():
        theirs = set().union(*(served()[name] for name in re.findall(r"\bprism_[a-z_]+", expression)))
        matched = re.findall(r"\b([a-z]+)(?:=~|=)\"", expression)
        grouped = [label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")]
        # le is a histogram's, and Prometheus itself adds the namespace of the operator's pod
        assert {*matched, *grouped} - {""} <= theirs | {"le", "namespace"}, expression


def test_every_metric_of_the_operator_has_its_place_on_the_dashboard():
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    assert {name for name in served() if not name.endswith(("_count", "_sum")) and name not in shown} == set()


def test_the_alerts_are_these_and_each_says_what_to_do():
    assert [rule["alert"] for rule in rules()] == [
        "PrismOperatorDown",
        "PrismWatchSilent",
        "PrismReconcileErrors",
        "PrismWorkqueueBackingUp",
        "PrismRunStalled",
    ]
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["for"] and rule["labels"]["severity"] in ("warning", "critical")


def test_the_dashboards_panels_have_titles_of_their_own_and_do_not_overlap():
    assert len({panel["title"] for panel in panels()}) == len(panels())
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    for one, other in combinations([panel["gridPos"] for panel in dashboard()["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, f"{one} and {other}"


def test_the_dashboard_reaches_its_reader_byte_for_byte():
    assert dashboard() == json.loads((CHART / "files/dashboard.json").read_text())


def notes(folder, values, *arguments):
    """NOTES.txt as an install would print it; `helm template` leaves it out, so it goes in as a manifest."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    shutil.move(chart / "templates/NOTES.txt", chart / "files/NOTES.txt")
    (chart / "templates/notes.yaml").write_text('notes: |\n  {{- tpl (.Files.Get "files/NOTES.txt") . | nindent 2 }}\n')
    shown = ("--show-only", "templates/notes.yaml", "--namespace", "prism-system", "--kube-version", "1.34.4")
    return yaml.safe_load(helm("template", "prism", str(chart), *shown, *arguments, values=values).stdout)["notes"]


@pytest.mark.parametrize(
    "values, arguments, words, absent",
    [
        ({}, (), "KubeRay is missing", "it does not look for new kinds"),
        ({}, ("--api-versions", "ray.io/v1/RayCluster"), "of all namespaces", "KubeRay is missing"),
        ({"watchNamespaces": ["team-a"]}, (), "rollout restart deployment/prism", "of all namespaces"),
        ({"watchNamespaces": ["team-a"]}, (), "kubectl -n team-a apply", "-n prism-system apply"),
        ({"metrics": {"serviceMonitor": {"enabled": True}}}, (), "metrics.serviceMonitor was left out", "prometheusRule"),
        ({"rbac": {"create": False}}, (), "rbac.create is false", "DELETES"),
        ({"crds": {"keep": False}}, (), "DELETES EVERY PRISMRUN", "keeps the PrismRuns"),
    ],
)
def test_the_notes_say_what_is_missing_and_how_to_go_on(tmp_path, values, arguments, words, absent):
    text = notes(tmp_path, values, *arguments)
    assert words in text and absent not in text


def sample_of_notes(tmp_path):
    return notes(tmp_path, {}).split("<<RUN\n")[1].split("RUN\n")[0]


def sample_of_chart(tmp_path):
    return yaml.safe_dump(
        yaml.safe_load(yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["artifacthub.io/crdsExamples"])[0]
    )


def sample_of_helm_test(tmp_path):
    return the(render(), "ConfigMap", "prism-test")["data"]["sample.json"]


def sample_of_readme(tmp_path):
    return README.split("<<RUN\n")[1].split("RUN\n")[0]


@pytest.mark.parametrize("sample", [sample_of_notes, sample_of_chart, sample_of_helm_test, sample_of_readme])
def test_every_prismrun_that_the_chart_shows_is_valid(tmp_path, sample):
    file = tmp_path / "sample.yaml"
    file.write_text(sample(tmp_path))
    validated = validate_file(file, None)
    assert validated.problems == () and validated.run is not None


def test_helm_test_asks_for_every_right_that_the_role_grants():
    objects = render()
    asked = json.loads(the(objects, "ConfigMap", "prism-test")["data"]["access.json"])
    granted = [
        (group, resource, verb)
        for rule in the(objects, "ClusterRole")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if group != "apiextensions.k8s.io"
    ]
    assert sorted((a["group"], "/".join(filter(None, (a["resource"], a.get("subresource")))), a["verb"]) for a in asked) == sorted(granted)


def test_every_object_of_helm_test_is_removed_after_it_passed():
    hooks = [found["metadata"]["annotations"] for found in render() if "helm.sh/hook" in found["metadata"].get("annotations", {})]
    assert len(hooks) == len(of_kind(render(), "Pod")) + 4
    assert {hook["helm.sh/hook-delete-policy"] for hook in hooks} == {"before-hook-creation,hook-succeeded"}
