"""The correctness run of engine verl on a GPU: what it asks of a stage, and what it takes for a failure."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
import yaml
from texts import Task, curated_response

from builders import make_manifest
from prism_trainer.contract.checkpoint import MANIFEST
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.responses import parse_response

ROOT = Path(__file__).parents[2]
PROMPT = yaml.safe_load((ROOT / "examples/digits/prismrun.yaml").read_text())["spec"]["systemPrompt"]


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu"))
    import claims
    import correctness

    yield correctness, claims
    for name in ("correctness", "claims"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(tmp_path):
    """What `prism run` leaves of sft and of the discriminator, without their weights."""
    job = StageJob(
        run="digits", stage="sft", attempt=1, engine="local", seed=0, system_prompt=PROMPT, config=SftConfig(), config_digest="d",
        output_uri="o", report_dir="r",
    )  # fmt: skip
    write(tmp_path / "stages/sft/attempt-1/job.json", job.model_dump_json())
    for stage, role in (("sft", "policy"), ("discriminator", "discriminator")):
        manifest = make_manifest(stage, 1, 4, True, "sha256:" + "0" * 64, role)
        write(tmp_path / f"checkpoints/{stage}/attempt-1/step-000004/{MANIFEST}", json.dumps(manifest.to_file()))
    return tmp_path


def write(file, text):
    file.parent.mkdir(parents=True)
    file.write_text(text)


def lines(*metrics):
    return [{"step": number, "metrics": found} for number, found in enumerate(metrics, 1)]


@pytest.mark.parametrize("name", ["alignment", "grpo", "dapo", "gspo", "discriminator"])
def test_a_stage_reads_under_the_system_prompt_of_the_run(modules, run, name):
    options = argparse.Namespace(run=run, data=run / "data", out=run / "out", device="cpu", steps=5)
    assert modules[0].make_job(name, options, run / "out", None).system_prompt == PROMPT


def test_a_separable_teacher_names_the_right_digit_first_and_keeps_the_format(modules):
    told = modules[0].right_first(curated_response(Task("?", 3, 8, "plus", 11)).text)
    assert told.startswith("<caption>\n- right digit 8\n- left digit 3\n</caption>\n<think>\n3 plus 8 gives 11\n")
    assert parse_response(told) is not None


def test_a_metric_that_the_report_has_left_out_is_a_failure(modules):
    claims = modules[1]
    whole = dict.fromkeys(claims.REQUIRED["alignment"], 0.5)
    broken = {name: value for name, value in whole.items() if name != "actor/grad_norm"}
    assert claims.finite_metrics("alignment", lines(whole, whole)) == []
    assert claims.finite_metrics("alignment", lines(whole, broken)) == ["step 2 has no finite actor/grad_norm"]


def test_what_a_start_measures_before_its_first_step_is_no_step(modules):
    claims = modules[1]
    trained = dict.fromkeys(claims.REQUIRED["discriminator"], 0.5)
    found = [
        {"step": 3, "metrics": {"held_out/acc": 0.5, "students/too_long": 0.0}},
        *({"step": step, "metrics": trained} for step in (4, 5)),
    ]
    assert claims.steps_taken(found, 4, 5) == claims.finite_metrics("discriminator", found) == []
    assert claims.steps_taken(found, 3, 5) == ["took steps [4, 5], expected 3 to 5"]


@pytest.mark.parametrize(
    ("accuracies", "rises"),
    [((0.5, 0.4, 0.7, 0.8), True), ((0.5, 0.9, 0.5, 0.5), False), ((1.0, 1.0, 1.0), False), ((0.5, None, 0.9), False), ((0.1, 0.9), False)],
)
def test_the_accuracy_rises_where_its_last_two_are_above_the_first(modules, accuracies, rises):
    found = lines(*({"critic/d_acc": one} if one is not None else {} for one in accuracies))
    assert (modules[1].accuracy_rises(found) == []) is rises


def test_a_final_checkpoint_whose_policy_does_not_load_is_a_failure(modules, run):
    folder = run / "checkpoints/sft/attempt-1/step-000004"
    assert "policy of step-000004 does not load" in modules[1].export_loads("rlvr", folder)[0]
    assert modules[1].export_loads("rlvr", run) == [f"{run} is no final checkpoint"]
