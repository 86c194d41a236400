"""The discriminators of the ablations: dense, and text only."""

from dataclasses import replace

import pytest
import torch

from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig
from prism_trainer.contract.optim import Optimizer, Rollout
from prism_trainer.discriminator.upcycle import make_discriminator
from prism_trainer.engines.adversary import score_and_accumulate, step_discriminator
from prism_trainer.engines.comparisons import score_pairs
from prism_trainer.engines.local.models import load_discriminator
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.pairs import Pair
from prism_trainer.stages.discriminator import warm_up_step

CPU = torch.device("cpu")


def _score(scorer, prompts, responses):
    with torch.no_grad():
        scores = scorer.score(scorer.collate(prompts), range(len(prompts)), responses)
    return torch.stack([scores.caption_R, scores.cot_R], dim=1)


def test_item_8_the_dense_discriminator_is_the_policys_backbone_with_a_head(policy, make_scorer):
    model = make_scorer(backbone="dense").model
    source, target = policy.model.state_dict(), model.model.state_dict()
    assert source.keys() == target.keys() and all(torch.equal(tensor, target[name]) for name, tensor in source.items())
    assert model.score.weight.shape == (1, 192)


def test_item_8_the_text_discriminator_has_experts_and_no_eyes(policy, make_scorer):
    names = make_scorer(backbone="text").model.state_dict().keys()
    sighted = make_scorer().model.state_dict().keys()
    assert names == {name for name in sighted if not name.startswith("model.visual.")} and names != sighted


@pytest.mark.parametrize(("backbone", "differs"), [("moe", True), ("dense", True), ("text", False)])
def test_only_the_text_discriminator_is_blind(make_scorer, make, backbone, differs):
    scorer, prompt = make_scorer(backbone=backbone), make.prompts(1)[0]
    other = replace(prompt, id="p:other", images=(make.png(seed=99),))
    first, second = (_score(scorer, [one], [make.response()]) for one in (prompt, other))
    assert bool((first - second).abs().max() > 1e-4) is differs


def test_a_policys_prompts_keep_their_images_beside_a_blind_discriminator(make_scorer, encoder, make):
    scorer = make_scorer(backbone="text")
    assert len(scorer.collate(make.prompts(2)).image_grid_thw) == 0
    assert len(scorer.encoder.collate(make.prompts(2)).image_grid_thw) == 2


@pytest.mark.parametrize("backbone", ["moe", "dense", "text"])
def test_every_backbone_saves_and_loads_as_a_hugging_face_directory(policy, processor, make_scorer, make, backbone, tmp_path):
    scorer = make_scorer(backbone=backbone)
    scorer.model.save_pretrained(tmp_path / "made")
    loaded = load_discriminator(tmp_path / "made", CPU).eval()
    assert type(loaded) is type(scorer.model) and loaded.config.cot_sees_caption and loaded.sees_images is (backbone != "text")
    expected = _score(scorer, make.prompts(2), [make.response()] * 2)
    torch.testing.assert_close(_score(replace(scorer, model=loaded), make.prompts(2), [make.response()] * 2), expected)
    loaded.save_pretrained(tmp_path / "loaded")
    for file in (tmp_path / "made").iterdir():
        assert file.read_bytes() == (tmp_path / "loaded" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("backbone", ["dense", "text"])
def test_every_backbone_learns_in_warm_up_and_in_alignment(make_scorer, make, backbone):
    scorer, taught = make_scorer(backbone=backbone), make.taught(2)
    students = [make.response(think=f"{index} against 1 gives {index}") for index in range(4)]
    optimizer = StageOptimizer(scorer.model, Optimizer(learning_rate=1e-3, weight_decay=0.0), 20)
    pairs = [Pair(taught[index // 2], one) for index, one in enumerate(students)]
    before = [score_pairs(scorer, pairs)[0].caption_R.detach().clone()]
    losses = [warm_up_step(scorer, optimizer, pairs, DiscriminatorConfig(batch_size=8, micro_batch_size=8))["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    config = AlignmentConfig(rollout=Rollout(group_size=2))
    result = score_and_accumulate(scorer, taught, students, config)
    assert (result.metrics["critic/balance_loss"] == 0) is (backbone == "dense")
    step_discriminator(optimizer, result)
    assert not torch.equal(score_pairs(scorer, pairs)[0].caption_R, before[0])


def test_the_dense_head_comes_from_the_seed(policy):
    first, again, other = (
        make_discriminator(policy, DiscriminatorConfig(backbone="dense"), torch.Generator().manual_seed(seed)).score.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
