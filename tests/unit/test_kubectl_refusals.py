"""What the API server says no with becomes a sentence that says what to do."""

import json

import pytest

from prism_operator.kubectl.refusals import RefusedError, UnreachableError, refusal
from prism_operator.kubectl.server_check import path_of, problems_of

CLUSTER = "the cluster of context 'here' (https://example)"
GET = "GET /apis/prism.dev/v1alpha1/namespaces/team/prismruns/demo"


def told(code: int, message: str, reason: str = "", **details: object) -> RefusedError:
    body = {"kind": "Status", "message": message, "reason": reason, "details": details}
    found = refusal(code, json.dumps(body), GET, CLUSTER)
    assert isinstance(found, RefusedError)
    return found


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            'prismruns is forbidden: User "jane" cannot patch resource "prismruns" in API group "prism.dev" in the namespace "team"',
            "'jane' may not patch prismruns.prism.dev in namespace 'team'. The ClusterRole 'edit' allows it",
        ),
        (
            'prismruns.prism.dev is forbidden: User "jane" cannot list resource "prismruns" in API group "prism.dev" at the cluster scope',
            "'jane' may not list prismruns.prism.dev in all namespaces. The ClusterRole 'view' allows it",
        ),
        (
            'pods "x" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "team"',
            "kubectl create rolebinding NAME --clusterrole=view --user=jane -n team",
        ),
    ],
)
def test_a_missing_right_names_verb_object_place_and_the_role_that_has_it(message: str, expected: str) -> None:
    assert expected in str(told(403, message, "Forbidden"))


def test_a_policy_that_denies_is_not_mistaken_for_a_missing_right() -> None:
    message = "ValidatingAdmissionPolicy 'site' with binding 'site' denied request: spec.image needs a digest"
    assert str(told(403, message)) == f"{GET}: {message} (403)"


def test_credentials_that_are_not_accepted_are_said_to_be_old() -> None:
    assert "may have expired: log in again" in str(told(401, "Unauthorized"))


def test_a_cluster_without_the_definition_is_told_from_a_run_that_is_missing() -> None:
    assert "is not installed; install the chart" in str(refusal(404, "404 page not found\n", GET, CLUSTER))
    assert "not installed" not in str(told(404, 'prismruns.prism.dev "demo" not found', "NotFound"))


@pytest.mark.parametrize("code", [429, 503])
def test_an_overloaded_server_is_worth_another_try(code: int) -> None:
    assert isinstance(refusal(code, "", GET, CLUSTER), UnreachableError)


def test_causes_become_problems_with_paths() -> None:
    causes = [
        {"field": "spec.stages[1].config", "message": 'Invalid value: "object": batchSize must be a multiple of microBatchSize'},
        {"field": "spec.storage", "message": "Required value"},
        {"field": "<nil>", "message": "some validation rules were not checked"},
    ]
    found = [str(problem) for problem in problems_of(told(422, "is invalid", "Invalid", causes=causes))]
    assert found == [
        "spec.stages[1].config: batchSize must be a multiple of microBatchSize",
        "spec.storage: required value",
        "some validation rules were not checked",
    ]


def test_unknown_fields_of_strict_validation_become_problems_with_paths() -> None:
    message = 'strict decoding error: unknown field "spec.foo", unknown field "spec.stages[0].bar"'
    assert [str(problem) for problem in problems_of(told(400, message))] == [
        "spec.foo: unknown key 'foo'",
        "spec.stages[0].bar: unknown key 'bar'",
    ]


def test_what_has_no_path_is_told_whole() -> None:
    assert [str(problem) for problem in problems_of(told(403, "exceeded quota: runs"))] == [
        "the API server refuses it: exceeded quota: runs"
    ]


def test_a_field_is_a_path() -> None:
    assert path_of("spec.stages[12].config.rollout") == ("spec", "stages", 12, "config", "rollout")
