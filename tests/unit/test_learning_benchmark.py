"""The PrismRuns of benchmarks/learning.py: each is valid, and differs from full PRISM in the one thing it names."""

import json
import sys
from pathlib import Path

import pytest

from prism_operator.parse import parse_run
from prism_operator.plan import plan_problems

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
learning = pytest.importorskip("learning")


def _stages(name, seed=0):
    variant = next(one for one in learning.VARIANTS if one.name == name)
    found = parse_run(learning.prismrun(variant, seed, Path("/out")))
    assert found.problems == () and plan_problems(found.run) == []
    return {stage.kind: stage for stage in found.run.spec.stages}


@pytest.mark.parametrize("name", [variant.name for variant in learning.VARIANTS])
def test_every_variant_is_a_run_that_ends_in_the_policy_it_is_judged_by(name):
    variant = next(one for one in learning.VARIANTS if one.name == name)
    assert variant.policy in _stages(name) and "evaluation" in _stages(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prism-dapo", "rlvr"),
        ("prism-gspo", "rlvr"),
        ("no-discriminator-warm-up", "discriminator"),
        ("dense-discriminator", "discriminator"),
        ("text-discriminator", "discriminator"),
    ],
)
def test_a_variant_changes_one_stage_of_full_prism(name, kind):
    whole, varied = _stages("prism-grpo"), _stages(name)
    assert [one for one in whole if whole[one].config != varied[one].config] == [kind]


def test_what_comes_before_the_difference_is_shared():
    def pins(name):
        return {kind: str(stage.checkpoint.uri).split("runs/")[1] for kind, stage in _stages(name).items() if stage.checkpoint}

    of_prism = {kind: f"prism-grpo-0/checkpoints/{kind}" for kind in ("discriminator", "alignment")}
    assert pins("sft") == {} and pins("prism-grpo") == pins("grpo") == {"sft": "sft-0/checkpoints/sft"}
    assert pins("prism-dapo") == pins("prism-gspo") == {"sft": "sft-0/checkpoints/sft", **of_prism}


def test_a_variant_is_run_after_what_it_shares():
    chosen = [one for one in learning.VARIANTS if one.name == "prism-dapo"]
    assert [[one.name for one in part] for part in learning.in_turn(chosen)] == [["sft"], ["prism-grpo"], ["prism-dapo"]]


def test_the_baseline_has_as_many_steps_of_reinforcement_learning_in_all():
    whole, baseline = _stages("prism-grpo"), _stages("grpo")
    assert baseline["rlvr"].config.steps == whole["rlvr"].config.steps + whole["alignment"].config.steps
    assert "alignment" not in baseline


def outcomes(*accuracies, curve=(), **facts):
    return [learning.Outcome(seed, accuracy, list(curve), facts) for seed, accuracy in enumerate(accuracies)]


def test_the_table_has_a_row_for_what_was_run_beside_the_papers():
    told = outcomes(0.25, **{"entropy, first": 1.5})
    found = learning.table({"sft": outcomes(0.4, 0.5), "no-discriminator-warm-up": told})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()[2:]]
    assert [row[:5] for row in rows] == [
        ["sft alone", "45.0", "7.1", "2", "56.8"],
        ["discriminator without warm-up", "25.0", "-", "1", "-"],
    ]
    assert rows[1][8] == "1.50" and rows[0][8] == "-"


def test_the_papers_column_is_the_papers_data():
    found = [variant.paper for variant in learning.VARIANTS]
    assert found == [56.8, 61.8, 66.2, 66.3, 65.8, None, 62.8, 62.3]


def test_the_figure_is_drawn(tmp_path):
    learning.write({"sft": outcomes(0.4, 0.5), "prism-grpo": outcomes(0.6, curve=[0.1] * 8)}, tmp_path)
    assert (tmp_path / "learning.png").stat().st_size > 5_000


def test_a_curve_is_the_mean_of_seeds_and_of_the_steps_before():
    assert learning.mean_curve([[0.0, 1.0], [1.0, 1.0]]) == [0.5, 0.75]


def test_of_a_step_done_twice_the_later_attempt_counts(tmp_path):
    for attempt, values in ((1, [0.1, 0.2]), (2, [0.3, 0.4])):
        folder = tmp_path / "stages" / "rlvr" / f"attempt-{attempt}"
        folder.mkdir(parents=True)
        lines = [json.dumps({"step": attempt + number, "metrics": {"m": value}}) for number, value in enumerate(values)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert learning.values_of(tmp_path, "rlvr", "m") == [0.1, 0.3, 0.4]
