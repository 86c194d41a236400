"""A new run from one that failed: what it is called, what it takes over, when there is none."""

from itertools import islice

import pytest

from builders import at, make_run
from prism_operator.kubectl.retry import RETRY_OF, CannotRetryError, make_retry, next_names, require_failed
from prism_operator.kubectl.runs import Run
from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems


def failed_run(name: str = "demo", **metadata) -> Run:
    """sft is done, rlvr failed; evaluation was not reached."""
    builder = make_run(name, storage={"pvc": {"claimName": "runs"}}, suspend=True)
    builder.stage("sft").stage("rlvr").stage("evaluation")
    scene = builder.scene().done("sft").attempt("rlvr", 1, failed="UserError")
    raw = {**builder.raw, "metadata": {"name": name, "namespace": "team", "uid": "u", "resourceVersion": "7", **metadata}}
    return Run({**raw, "status": scene.status(at(10)).to_dict()})


def test_verified_stages_are_replaced_by_their_checkpoint_and_its_digest():
    run = failed_run()
    made = make_retry(run, "demo-2")
    sft = run.status.stages[0].checkpoint
    assert made.document["spec"]["stages"][0]["checkpoint"] == {"uri": sft.uri, "digest": sft.digest}
    assert sft.digest.startswith("sha256:")
    assert (made.taken, made.anew) == (("sft",), ("rlvr", "evaluation"))
    assert all("checkpoint" not in stage for stage in made.document["spec"]["stages"][1:])


def test_the_new_run_is_valid_and_not_suspended():
    document = make_retry(failed_run(), "demo-2").document
    parsed = parse_run(document)
    assert parsed.problems == () and plan_problems(parsed.run) == []
    assert "status" not in document and not parsed.run.spec.suspend


def test_the_failed_run_is_left_as_it_is():
    run = failed_run()
    before = str(run.raw)
    make_retry(run, "demo-2")
    assert str(run.raw) == before


def test_labels_and_annotations_go_along_and_the_bookkeeping_does_not():
    last = "kubectl.kubernetes.io/last-applied-configuration"
    metadata = make_retry(failed_run(labels={"queue": "q"}, annotations={"note": "x", last: "{}"}, finalizers=["f"]), "demo-2").document[
        "metadata"
    ]
    assert metadata == {"name": "demo-2", "namespace": "team", "annotations": {RETRY_OF: "demo", "note": "x"}, "labels": {"queue": "q"}}


@pytest.mark.parametrize(
    ("name", "retry_of", "expected"),
    [
        ("demo", None, ["demo-2", "demo-3"]),
        ("demo-2", "demo", ["demo-3", "demo-4"]),
        ("digits-8", None, ["digits-8-2", "digits-8-3"]),
        ("x" * 36, None, ["x" * 34 + "-2", "x" * 34 + "-3"]),
        ("x" * 33 + "-9", "x" * 36, ["x" * 33 + "-10", "x" * 33 + "-11"]),
    ],
)
def test_retries_are_counted(name, retry_of, expected):
    run = failed_run(name, **({"annotations": {RETRY_OF: retry_of}} if retry_of else {}))
    assert list(islice(next_names(run), 2)) == expected
    assert all(len(found) <= 36 for found in expected)


def test_a_retry_of_a_retry_still_names_the_first():
    run = failed_run("demo-2", annotations={RETRY_OF: "demo"})
    assert make_retry(run, "demo-3").document["metadata"]["annotations"][RETRY_OF] == "demo"


def test_a_run_under_way_is_not_retried():
    builder = make_run().stage("sft")
    run = Run({**builder.raw, "status": builder.scene().live("sft").status().to_dict()})
    with pytest.raises(CannotRetryError, match=r"has not finished \(Running\): failed attempts are tried again by themselves"):
        require_failed(run)


def test_a_run_that_succeeded_is_not_retried():
    builder = make_run().stage("sft")
    run = Run({**builder.raw, "status": builder.scene().done("sft").status().to_dict()})
    with pytest.raises(CannotRetryError, match="succeeded: to do it again, apply its file under another"):
        require_failed(run)
