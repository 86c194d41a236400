"""What "implements PRISM" takes of the discriminator and its update, by the numbers of the specification's list (5, 7, 10, 11, 13, 14).

That item 7's balance has a gradient is in test_scoring, items 6 and 8 are in test_released and test_backbones; 9, 12, 15, 16 and 17 need
whole stages and are in tests/pipeline.
"""

from dataclasses import replace

import pytest
import torch

from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig
from prism_trainer.contract.optim import Optimizer, Rollout
from prism_trainer.discriminator.losses import bradley_terry
from prism_trainer.engines.adversary import score_and_accumulate
from prism_trainer.engines.comparisons import measure_pairs, score_pairs
from prism_trainer.engines.local.models import load_discriminator
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.pairs import Pair
from prism_trainer.stages.discriminator import warm_up_step

CONFIG = AlignmentConfig(rollout=Rollout(group_size=2), micro_batch_size=2)


@pytest.mark.parametrize(("experts", "per_token"), [(2, 1), (4, 2), (3, 3)])
def test_item_5_any_number_of_experts_is_made_saved_and_loaded(make_scorer, make, tmp_path, experts, per_token):
    scorer = make_scorer(num_experts=experts, experts_per_token=per_token)
    scorer.model.save_pretrained(tmp_path)
    loaded = load_discriminator(tmp_path, torch.device("cpu")).eval()
    text = loaded.config.text_config
    assert (text.num_experts, text.num_experts_per_tok) == (experts, per_token)
    pairs = [Pair(row, make.response()) for row in make.taught(2)]
    before, after = (score_pairs(replace(scorer, model=model), pairs)[1].cot_R for model in (scorer.model, loaded))
    torch.testing.assert_close(after, before)


def test_item_7_the_warm_up_learns_from_captions_and_cots_and_is_measured_on_other_pairs(make_scorer, make):
    scorer, taught = make_scorer(), make.taught(6)
    pairs = [Pair(row, make.response(caption=f"- left digit {index}")) for index, row in enumerate(taught)]
    optimizer = StageOptimizer(scorer.model, Optimizer(learning_rate=1e-3, weight_decay=0.0), 20)
    config = DiscriminatorConfig(batch_size=8, micro_batch_size=4, balance_coef=0.01)
    before = measure_pairs(scorer, pairs[4:], 2)
    steps = [warm_up_step(scorer, optimizer, pairs[:4], config) for _ in range(6)]
    after = measure_pairs(scorer, pairs[4:], 2)
    assert steps[-1]["loss"] < steps[0]["loss"] and all(step["balance_loss"] > 0 for step in steps)
    assert after["held_out/caption_gap"] > before["held_out/caption_gap"] and after["held_out/cot_gap"] > before["held_out/cot_gap"]


def test_item_10_one_discriminator_scores_both_spans_of_teacher_and_student_alike(make_scorer, make):
    scorer, taught = make_scorer(), make.taught(2)
    result = score_and_accumulate(scorer, taught, [row.teacher for row in taught for _ in range(2)], CONFIG, learns=False)
    metrics = result.metrics
    for name in ("caption", "cot"):
        assert metrics[f"critic/{name}_gap"] == pytest.approx(0, abs=1e-4)
        assert metrics[f"critic/teacher_{name}_mean"] == pytest.approx(metrics[f"critic/student_{name}_mean"], abs=1e-4)


def test_item_11_an_invalid_response_has_neutral_scores_and_a_flag(make_scorer, make):
    students = [make.response(), None, None, make.response(answer="9")]
    result = score_and_accumulate(make_scorer(), make.taught(2), students, CONFIG)
    assert result.valid_PN.tolist() == [[True, False], [False, True]]
    assert result.caption_PN[~result.valid_PN].tolist() == result.cot_PN[~result.valid_PN].tolist() == [0.0, 0.0]
    assert (result.caption_PN[result.valid_PN] != 0).all()


def test_item_13_the_loss_of_a_step_by_hand(make_scorer, make):
    """Two Bradley-Terry means over the valid of the whole step, L2 over their pairs, in micro-batches of which one has one valid student;
    the update divides by the three of them."""
    scorer, taught = make_scorer(), make.taught(2)
    students = [make.response(), make.response(answer="4"), None, make.response(caption="- x")]
    config = CONFIG.model_copy(update={"balance_coef": 0.0, "score_reg_coef": 0.1})
    score_and_accumulate(scorer, taught, students, config)
    accumulated = scorer.model.score.weight.grad.clone()
    scorer.model.zero_grad()
    valid = [(index // 2, one) for index, one in enumerate(students) if one is not None]
    teacher = scorer.score(scorer.collate([row.prompt for row in taught]), [0, 1], [row.teacher for row in taught])
    student = scorer.score(scorer.collate([row.prompt for row in taught]), [row for row, _ in valid], [one for _, one in valid])
    rows = torch.tensor([row for row, _ in valid])
    loss = bradley_terry(teacher.caption_R[rows], student.caption_R).mean() + bradley_terry(teacher.cot_R[rows], student.cot_R).mean()
    pairs = (teacher.caption_R[rows], teacher.cot_R[rows], student.caption_R, student.cot_R)
    (loss + 0.1 * sum(scores.square().mean() for scores in pairs) / 4).backward()
    torch.testing.assert_close(accumulated / 3, scorer.model.score.weight.grad, atol=1e-5, rtol=1e-3)


def test_item_13_a_prompt_weighs_what_its_valid_students_weigh(make_scorer, make):
    """In every term, the router's balance too; so the gradients of a step are the sum of its prompts', and one without any adds nothing."""
    scorer, taught = make_scorer(), make.taught(3)
    students = [make.response(), make.response(answer="4"), None, make.response(caption="- x"), None, None]
    config = CONFIG.model_copy(update={"balance_coef": 0.1, "score_reg_coef": 0.1})
    alone = [score_and_accumulate(scorer, [row], students[2 * n : 2 * n + 2], config) for n, row in enumerate(taught)]
    added_up = {name: one.grad.clone() for name, one in scorer.model.named_parameters() if one.grad is not None}
    scorer.model.zero_grad()
    together = score_and_accumulate(scorer, taught, students, config)
    for name, one in scorer.model.named_parameters():
        assert (one.grad is None) is (name not in added_up)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, added_up[name], atol=1e-5 * float(one.grad.abs().max()) + 1e-9, rtol=1e-4, msg=name)
    two, one, none = (result.metrics.get("critic/balance_loss") for result in alone)
    assert together.metrics["critic/balance_loss"] == pytest.approx((2 * two + one) / 3, rel=1e-5) and none is None


def test_item_13_scores_are_clipped_for_the_policy(make_scorer, make):
    students = [make.response(), make.response(answer="4")]
    config = CONFIG.model_copy(update={"score_clip": 0.01})
    result = score_and_accumulate(make_scorer(), make.taught(1), students, config)
    assert result.caption_PN.abs().max() <= 0.01 < abs(result.metrics["critic/student_caption_mean"])


def test_item_13_a_discriminator_that_pauses_is_scored_without_gradients(make_scorer, make):
    scorer, students = make_scorer(), [make.response(), make.response(answer="4")]
    paused = score_and_accumulate(scorer, make.taught(1), students, CONFIG, learns=False)
    assert all(parameter.grad is None for parameter in scorer.model.parameters())
    learning = score_and_accumulate(scorer, make.taught(1), students, CONFIG)
    torch.testing.assert_close(paused.cot_PN, learning.cot_PN)


def test_length_correction_takes_the_logarithm_of_each_components_own_tokens(make_scorer, make):
    scorer = make_scorer()
    (pair,) = [Pair(row, make.response(think="3 plus 4 gives 7 " * 9)) for row in make.taught(1)]
    _, student = score_pairs(scorer, [pair])
    end = len(scorer.encoder.response_ids("<|im_end|>\n"))
    caption = len(scorer.encoder.response_ids(pair.student.caption_block.of(pair.student.text))) + end
    assert student.caption_tokens_R.tolist() == [caption] and student.cot_tokens_R.item() > caption
    corrected = student.less_length(0.5, 2.0)
    torch.testing.assert_close(student.caption_R - corrected.caption_R, 0.5 * torch.log1p(student.caption_tokens_R))
    torch.testing.assert_close(student.cot_R - corrected.cot_R, 2.0 * torch.log1p(student.cot_tokens_R))


@pytest.mark.parametrize("sees", [True, False])
def test_a_components_length_is_its_own_however_it_is_presented(make_scorer, make, sees):
    _, student = score_pairs(make_scorer(cot_sees_caption=sees), [Pair(row, make.response()) for row in make.taught(1)])
    _, other = score_pairs(make_scorer(cot_sees_caption=not sees), [Pair(row, make.response()) for row in make.taught(1)])
    assert student.cot_tokens_R.tolist() == other.cot_tokens_R.tolist()
