"""What `helm test` asks the cluster. `check.py operator` runs as the operator's account, `check.py sample` as one that may make a PrismRun.

It knows no library, so that it also speaks where the image is broken. Each check prints one line; any failure makes the exit code 1.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HERE = Path(__file__).parent
TIMEOUT_SECONDS = 20


def call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET, or POST with a body; a refusal's message is raised as RuntimeError."""
    request = urllib.request.Request(
        f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"},
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=trust) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise RuntimeError(f"{path}: HTTP {error.code}: {_message(text)}") from error


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except ValueError:
        return text


def kuberay_is_served() -> str:
    """RayCluster, ray.io/v1."""
    try:
        kinds = {resource["kind"] for resource in call("/apis/ray.io/v1")["resources"]}
    except RuntimeError as error:
        raise RuntimeError(f"ray.io/v1 is not served; install KubeRay ({error})") from error
    if "RayCluster" not in kinds:
        raise RuntimeError(f"ray.io/v1 serves {sorted(kinds)}, RayCluster is missing; install KubeRay 1.6 or newer")
    return "ray.io/v1 RayCluster is served"


def operator_is_allowed(rule: dict[str, str]) -> str:
    """One verb on one resource, asked of the API server as SelfSubjectAccessReview."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": rule}}
    status = call("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)["status"]
    resource = f"{rule['resource']}{'/' + rule['subresource'] if rule.get('subresource') else ''}"
    what = f"{rule['verb']} {resource} in {rule.get('namespace') or 'all namespaces'}"
    if not status.get("allowed"):
        raise RuntimeError(f"the operator's account may not {what}; look at the chart's rbac values")
    return f"the operator may {what}"


def metrics_are_served() -> str:
    """The operator's /metrics through its Service."""
    address = os.environ["METRICS_URL"]
    with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
        names = {line.split()[2] for line in answer.read().decode().splitlines() if line.startswith("# TYPE prism_")}
    if not names:
        raise RuntimeError(f"{address} has no metric whose name begins with prism_; expected prism_workqueue_depth and others")
    return f"{address} serves {len(names)} metrics of prism's"


def sample_is_accepted() -> str:
    """The API server takes a PrismRun, without keeping it."""
    namespace = os.environ["SAMPLE_NAMESPACE"]
    sample = json.loads((HERE / "sample.json").read_text())
    call(f"/apis/prism.dev/v1alpha1/namespaces/{namespace}/prismruns?dryRun=All&fieldValidation=Strict", sample)
    return f"a PrismRun would be accepted in {namespace}"


def operator_checks() -> Iterator[Callable[[], str]]:
    """KubeRay, every right, the metrics."""
    yield kuberay_is_served
    for rule in json.loads((HERE / "access.json").read_text()):
        yield lambda rule=rule: operator_is_allowed(rule)
    if os.environ.get("METRICS_URL"):
        yield metrics_are_served


def main(which: str) -> int:
    """Run all checks, also after one that failed."""
    num_failed = 0
    for check in operator_checks() if which == "operator" else [sample_is_accepted]:
        try:
            print(f"ok      {check()}", flush=True)
        except (RuntimeError, OSError) as error:
            num_failed += 1
            print(f"FAILED  {error}", flush=True)
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
