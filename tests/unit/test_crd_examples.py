"""The examples of the CRD: one file a feature, each sound, planned, explained and listed."""

import re
from pathlib import Path

import pytest
import yaml

from prism_operator.api import RunSpec
from prism_operator.kube.survey import cluster_problems
from prism_operator.plan import Site, make_plan
from prism_operator.validate import validate_file

CRDS = Path(__file__).parents[2] / "crds"
FILES = sorted((CRDS / "examples").glob("*.yaml"))
BY_NAME = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def raw(name):
    return yaml.safe_load((CRDS / "examples" / f"{name}.yaml").read_text())


@BY_NAME
def test_each_is_valid_and_planned(file):
    validated = validate_file(file, None)
    assert validated.lines() == []
    plan = make_plan(validated.run, Site(root_uri=f"/storage/{validated.run.metadata.name}", base_dir="/storage"))
    assert [stage.kind for stage in plan.stages] == [stage["kind"] for stage in validated.raw["spec"]["stages"]]


@BY_NAME
def test_a_cluster_carries_each_out(file):
    assert cluster_problems(validate_file(file, None).run) == []


@BY_NAME
def test_each_says_first_what_it_shows(file):
    comment, _ = re.split(r"^apiVersion", file.read_text(), maxsplit=1, flags=re.MULTILINE)
    assert len(comment) > 80 and all(line.startswith("#") for line in comment.splitlines())


def test_they_can_all_be_applied_to_one_namespace():
    names = [raw(file.stem)["metadata"]["name"] for file in FILES]
    assert len(set(names)) == len(names)


def test_the_readme_lists_them_all_and_no_others():
    listed = re.findall(r"`examples/([a-z0-9-]+)\.yaml`", (CRDS / "README.md").read_text())
    assert sorted(listed) == sorted(file.stem for file in FILES)


def test_the_two_digits_differ_in_nothing_but_their_storage():
    on_volume, in_bucket = raw("digits")["spec"], raw("digits-s3")["spec"]
    assert set(in_bucket.pop("storage")) == {"objectStore"} and set(on_volume.pop("storage")) == {"pvc"}
    assert on_volume == in_bucket


SETTINGS = sorted(set(RunSpec.model_fields) - {"model", "seed", "stages", "storage", "engine", "system_prompt"})


@pytest.mark.parametrize("field", [RunSpec.model_fields[name].alias for name in SETTINGS])
def test_every_setting_of_a_run_has_an_example(field):
    assert [file.stem for file in FILES if field in raw(file.stem)["spec"]]
