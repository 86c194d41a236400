"""The PrismRuns of benchmarks/learning.py: each is valid, and differs from full PRISM in the one thing it names."""

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
    assert [one for one in whole if whole[one] != varied[one]] == [kind]


def test_the_baseline_has_as_many_steps_of_reinforcement_learning_in_all():
    whole, baseline = _stages("prism-grpo"), _stages("grpo")
    assert baseline["rlvr"].config.steps == whole["rlvr"].config.steps + whole["alignment"].config.steps
    assert "alignment" not in baseline


def test_the_table_has_a_row_for_what_was_run_beside_the_papers():
    found = learning.table({"sft": [0.4, 0.5], "no-discriminator-warm-up": [0.25]})
    assert found.splitlines()[2:] == ["| sft alone | 45.0 | 7.1 | 2 | 56.8 |", "| discriminator without warm-up | 25.0 | - | 1 | - |"]


def test_the_figure_is_drawn(tmp_path):
    learning.write({"sft": [0.4, 0.5], "prism-grpo": [0.6]}, tmp_path)
    assert (tmp_path / "learning.png").stat().st_size > 5_000
