"""The chart under test: where helm is, and what it makes of the chart with some values."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from cluster.harness import versions
from cluster.harness.build import BY_NAME, build, program

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts/prism"
KUBERNETES = versions.KUBERNETES.removeprefix("v")
NAMESPACE = "prism-system"
EVERYTHING = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "force": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "force": True},
        "dashboard": {"enabled": True},
    },
    "stages": {"networkPolicy": {"enabled": True, "namespaces": ["team-a", "team-b"]}},
    "admissionPolicy": {"enabled": True, "allowedRegistries": ["registry.example.com/team"], "requireDigest": True, "maxGpus": 8},
}
"""Values with which every optional object is made, cluster-wide."""


@cache
def helm_binary():
    """PRISM_HELM, or PATH's, or the test cluster's own, which is built once and kept."""
    found = os.environ.get("PRISM_HELM") or shutil.which("helm")
    if found:
        return found
    if not BY_NAME["helm"].dir().exists() and shutil.which("go") is None:
        pytest.skip("helm is neither in PRISM_HELM nor in PATH nor in the test cluster's cache, and Go to build it with is missing")
    build(("helm",))
    return str(program("helm"))


def kubectl_binary():
    """PATH's, or the test cluster's own."""
    return shutil.which("kubectl") or str(program("kubectl"))


def helm(*arguments, values=None, check=True, kubeconfig=None):
    """The finished process; its output is text. Values go in by stdin, so that their types are kept."""
    command = [helm_binary(), *arguments, *(["--values", "-"] if values is not None else [])]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)}
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, env=environment, timeout=600)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


def manifest(values=None, *arguments, release="prism"):
    """What the chart makes of the values, as text."""
    # helm from the Go proxy takes Kubernetes for 1.20 where no cluster says otherwise
    return helm(
        "template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES, *arguments, values=values or {}
    ).stdout


def render(values=None, *arguments, release="prism"):
    """The same as objects."""
    return _parsed(json.dumps(values or {}), arguments, release)


@cache
def _parsed(values, arguments, release):
    text = manifest(json.loads(values), *arguments, release=release)
    return [document for document in yaml.safe_load_all(text) if document]


def refusal(values):
    """What helm answers to values that the chart does not take."""
    done = helm("template", "prism", str(CHART), "--kube-version", KUBERNETES, values=values, check=False)
    assert done.returncode != 0, f"helm took {values}"
    return done.stderr


def of_kind(objects, *kinds):
    """Those of the kinds, in order."""
    return [found for found in objects if found["kind"] in kinds]


def the(objects, kind, name="prism"):
    """The one of that kind and name."""
    [found] = [found for found in of_kind(objects, kind) if found["metadata"]["name"] == name]
    return found


def pods(objects):
    """Every pod's spec with its labels, whether it stands alone or in a Deployment."""
    bare = [(found["metadata"], found["spec"]) for found in of_kind(objects, "Pod")]
    made = [found["spec"]["template"] for found in of_kind(objects, "Deployment")]
    return [*bare, *((template["metadata"], template["spec"]) for template in made)]


def operator_container(objects):
    """The operator's own."""
    [container] = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container
