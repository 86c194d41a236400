"""The benchmarks of a GPU run to their end on a CPU, and both ways that they compare have one result."""

import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import discriminator
    import measure
    import sft
    import shapes
    import upstream

    yield {"discriminator": discriminator, "sft": sft, "upstream": upstream, "measure": measure, "shapes": shapes}
    for name in ("discriminator", "sft", "upstream", "measure", "shapes"):
        sys.modules.pop(name, None)


def _bench(modules, name, tmp_path):
    return modules[name].Bench(modules["measure"].Log(tmp_path / "out.jsonl", torch.device("cpu")), True)


def test_upstream_way_and_ours_give_the_same_scores(modules, tmp_path):
    bench, way = _bench(modules, "discriminator", tmp_path), modules["upstream"].Way()
    model, work = bench.model(), bench.work(200, 900, prompts=2)
    for changed in (way, way.but(masked=False, vision_each=False, teacher_each=False), way.but(score_experts="grouped_mm")):
        theirs = modules["upstream"].score(model, work, changed)
        modules["discriminator"].use_packed(model)
        torch.testing.assert_close(modules["discriminator"].pack_and_score(model, work), theirs, atol=1e-4, rtol=1e-3)


def test_upstream_way_and_ours_leave_the_same_gradients(modules, tmp_path):
    bench, upstream, ours = _bench(modules, "discriminator", tmp_path), modules["upstream"], modules["discriminator"]
    model, work = bench.model(), bench.work(200, 600, prompts=1)

    def gradients(run):
        model.zero_grad()
        run()
        return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}

    ways = {"each": upstream.Way(), "shared": upstream.Way(teacher_each=False, vision_each=False, masked=False, train_experts="grouped_mm")}
    theirs = {name: gradients(lambda way=way: upstream.update(model, work, way)) for name, way in ways.items()}
    ours.use_packed(model)
    found = gradients(lambda: ours.pack_and_update(model, work))
    for way, expected in theirs.items():
        for name, gradient in expected.items():
            torch.testing.assert_close(
                found[name], gradient, atol=2e-3 * float(gradient.abs().max() + 1e-6), rtol=1e-2, msg=f"{way} {name}"
            )


def test_the_experts_are_measured_in_every_way(modules, tmp_path):
    bench = _bench(modules, "discriminator", tmp_path)
    modules["discriminator"].experts(bench)
    modules["discriminator"].attention(bench)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["experts"] for line in lines if "experts" in line} == {"eager", "grouped_mm", "ours", "every_expert"}
    assert all(line["seconds"] > 0 for line in lines)


def test_a_step_of_sft_has_one_loss_every_way_and_is_measured(modules, tmp_path):
    bench, sft = _bench(modules, "sft", tmp_path), modules["sft"]
    losses = [sft.loss_of(bench, part) for part in ("step", "padded", "plain")]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    for part in ("step", "padded", "plain"):
        sft.measure(bench, part)
    assert [line["way"] for line in bench.log.lines] == ["step", "padded", "plain"]
