"""A file with mistakes gives every mistake, each with its path, its line and a way out."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_pipeline, make_run
from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems
from prism_operator.problems import format_path
from prism_operator.source import read_source


def problems_of(raw):
    return {format_path(problem.path): problem.sentence for problem in parse_run(raw).problems}


def changed(path, value):
    """A sound pipeline with one thing set, made on the way there."""
    raw = here = make_pipeline().raw
    for part in path[:-1]:
        here = here.setdefault(part, {}) if isinstance(here, dict) else here[part]
    here[path[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("spec", "stages", 2, "config", "rollout", "groupSice"), 4, "unknown key 'groupSice'; did you mean 'groupSize'?"),
        (("spec", "stages", 0, "config", "batch_size"), 4, "unknown key 'batch_size'; did you mean 'batchSize'?"),
        (("spec", "stages", 0, "config", "batchSize"), "many", "found 'many'"),
        (("spec", "stages", 0, "config", "kind"), "rlvr", "found 'rlvr'; expected 'sft'"),
        (("spec", "stages", 0, "kind"), "stf", "found kind 'stf'; did you mean 'sft'?"),
        (("spec", "stages", 3, "config", "algorithm"), {"name": "dapo", "clipLoww": 1}, "unknown key 'clipLoww'; did you mean 'clipLow'?"),
        (("spec", "stages", 3, "config", "algorithm"), {"name": "ppo"}, "found name 'ppo'"),
        (("spec", "storage"), {}, "found none of local, pvc and objectStore; give exactly one"),
        (("spec", "storage", "pvc"), {"claimName": "x"}, "found local and pvc"),
        (("spec", "env"), [{"name": "HF_TOKEN", "value": "x"}], "looks like a secret"),
        (("spec", "retires"), {}, "unknown key 'retires'; did you mean 'retries'?"),
        (("spec", "model"), None, "valid dictionary"),
        (("metadata", "name"), "Not_A_Label", "expected lower-case letters"),
        (("metadata", "name"), "x" * 37, "at most 36 characters"),
        (("apiVersion",), "prism.dev/v2", "expected 'prism.dev/v1alpha1'"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_each_mistake_has_a_sentence(path, value, sentence):
    assert any(sentence in found for found in problems_of(changed(path, value)).values()), problems_of(changed(path, value))


def test_paths_are_those_of_the_file():
    raw = changed(("spec", "stages", 3, "config", "algorithm"), {"name": "dapo", "clipLoww": 1})
    assert list(problems_of(raw)) == ["spec.stages[3].config.algorithm.clipLoww"]


def test_mistakes_behind_other_mistakes_are_found_in_the_same_pass():
    raw = make_run().stage("sft", config={"batchSize": 5, "batchSice": 4}).raw
    assert set(problems_of(raw)) == {"spec.stages[0].config", "spec.stages[0].config.batchSice"}


def test_what_holds_is_parsed_beside_what_does_not():
    parsed = parse_run(make_run(seed="seven").stage("sft").raw)
    assert parsed.problems and parsed.run is not None and parsed.run.spec.stages[0].name == "sft"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"])
def test_ordinary_variables_are_no_secrets(name):
    assert not problems_of(make_run(env=[{"name": name, "value": "1"}]).stage("sft").raw)


def test_metadata_the_api_server_adds_is_let_through():
    raw = make_run().stage("sft").raw
    raw["metadata"] |= {"managedFields": [], "resourceVersion": "7", "uid": "u"}
    raw["status"] = {"anything": 1}
    assert not problems_of(raw)


def test_the_line_of_a_path_is_known():
    source = read_source("a: 1\nb:\n  - c: 2\n  - d: 3\n")
    assert (source.line_of(("b", 1, "d")), source.line_of(("b", 1, "missing"))) == (4, 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1", "is not YAML: line 1"),
        ("a: 1\n---\nb: 2", "several YAML documents"),
        ("- 1", "expected a PrismRun"),
        ("", "expected a PrismRun"),
        ("a: 1\na: 2", "is given twice, on lines 1 and 2"),
    ],
)
def test_a_text_that_cannot_be_used_is_a_problem(text, sentence):
    assert any(sentence in problem.sentence for problem in read_source(text).problems)


@pytest.mark.parametrize(("text", "value"), [("1e-6", 1e-6), ("1.5E+3", 1500.0), ("-2e3", -2000.0), ("2026-01-01", "2026-01-01"), ("3", 3)])
def test_numbers_are_read_as_people_write_them(text, value):
    assert read_source(f"a: {text}").raw == {"a": value}


def paths_in(value, path=()):
    """Every path of a plain value, its containers too."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.sampled_from(["", "sft", "rlvr", "model", "x y"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["kind", "name", "uri", "config", "zzz"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), values=st.lists(JSON, min_size=1, max_size=3))
def test_whatever_stands_in_a_file_gives_a_plan_or_problems_with_paths(data, values):
    raw = copy.deepcopy(make_pipeline().raw)
    for value in values:
        *way, last = data.draw(st.sampled_from([path for path in paths_in(raw) if path]))
        here = raw
        for part in way:
            here = here[part]
        here[last] = value
    parsed = parse_run(raw)
    assert parsed.run is not None or parsed.problems
    assert all(problem.sentence and format_path(problem.path) for problem in parsed.problems)
    if parsed.run is not None:
        plan_problems(parsed.run)
