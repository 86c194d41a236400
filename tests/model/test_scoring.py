"""What the discriminator reads, against the defects of upstream's way (numbers as in the project's specification)."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from PIL import Image

from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig
from prism_trainer.contract.optim import Optimizer, Rollout
from prism_trainer.data.rows import Prompt
from prism_trainer.discriminator.spans import is_readable, scored_rows
from prism_trainer.engines.adversary import score_and_accumulate, step_discriminator
from prism_trainer.engines.comparisons import compare, score_pairs
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.pairs import Pair
from prism_trainer.engines.local.scoring import only_readable
from prism_trainer.errors import DataError

LONG = " ".join(["3 plus 4 gives 7"] * 400)


def _rows(encoder, parsed, sees=True, limit=4096):
    return scored_rows(parsed, encoder.response_ids, cot_sees_caption=sees, max_tokens=limit)


def _score(scorer, prompts, prompt_of, responses):
    with torch.no_grad():
        scores = scorer.score(scorer.encoder.collate(prompts), prompt_of, responses)
    return torch.stack([scores.caption_R, scores.cot_R], dim=1)


def test_a1_a_teacher_of_thousands_of_tokens_is_read_to_its_last_word(make_scorer, make):
    scorer = make_scorer()
    long, changed = make.response(think=LONG + " so 7"), make.response(think=LONG + " so 8")
    assert len(_rows(scorer.encoder, long)[0].token_ids) > 2000
    first, second = _score(scorer, make.prompts(1), [0, 0], [long, changed])
    torch.testing.assert_close(first[0], second[0], atol=1e-5, rtol=1e-5)
    assert (first[1] - second[1]).abs() > 1e-4


def test_a1_a_response_above_the_limit_is_refused_not_cut(encoder, make):
    with pytest.raises(DataError, match="above the limit of 512; nothing is cut, so raise the limit"):
        _rows(encoder, make.response(think=LONG), limit=512)


def test_a2_teacher_and_student_who_write_the_same_get_the_same_score(make_scorer, make):
    scorer = make_scorer()
    spaced = "<caption>\n- left digit 3\n</caption>\n\n  <think>\n3 plus 4 gives 7\n</think> <answer>\n7\n</answer>\n\n"
    from prism_trainer.responses import parse_response

    assert _rows(scorer.encoder, parse_response(spaced)) == _rows(scorer.encoder, make.response())
    taught = make.taught(2)
    teacher, student = score_pairs(scorer, [Pair(row, row.teacher) for row in taught])
    torch.testing.assert_close(teacher.caption_R, student.caption_R)
    torch.testing.assert_close(teacher.cot_R, student.cot_R)


@pytest.mark.parametrize("sees", [True, False], ids=["one row", "two rows"])
def test_a4_every_score_is_read_at_the_newline_after_a_turn_end(encoder, make, sees):
    newline, end = encoder.response_ids("\n")[0], encoder.tokenizer.eos_token_id
    for parsed in (make.response(), make.response(caption="- x", think=LONG)):
        places = [(row.token_ids, at) for row in _rows(encoder, parsed, sees) for at in (row.caption_at, row.cot_at) if at is not None]
        assert len(places) == 2
        assert all((ids[at - 1], ids[at]) == (end, newline) for ids, at in places)


def test_a4_alignment_reads_the_score_that_warm_up_trained(make_scorer, make):
    scorer, taught = make_scorer(), make.taught(2)
    students = [make.response(answer=str(index)) for index in range(4)]
    warm_up = score_pairs(scorer, [Pair(taught[index // 2], students[index]) for index in range(4)])[1]
    config = AlignmentConfig(rollout=Rollout(group_size=2), score_clip=1e6)
    aligned = _update(scorer, _optimizer(scorer), taught, students, config)
    torch.testing.assert_close(aligned.caption_PN.flatten(), warm_up.caption_R.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(aligned.cot_PN.flatten(), warm_up.cot_R.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a5_the_discriminator_sees_images_as_the_policy_does(make_scorer, processor, make, packed):
    """In warm-up and in alignment alike; upstream's warm-up shrinks them to sides of 560 pixels."""
    processor = copy.deepcopy(processor)
    processor.image_processor.size.longest_edge = 1000 * 1000
    scorer, seen = replace(make_scorer(packed=packed), encoder=PromptEncoder(processor, "Answer.")), []
    scorer.model.model.visual.register_forward_pre_hook(
        lambda module, given, named: seen.append((given[0], named["grid_thw"])), with_kwargs=True
    )
    taught = replace(make.taught(1)[0], prompt=Prompt("big", "What?", (make.png(600, 700),)))
    score_pairs(scorer, [Pair(taught, make.response())])
    score_and_accumulate(scorer, [taught], [make.response()] * 2, AlignmentConfig(rollout=Rollout(group_size=2)))
    policys = scorer.encoder.collate([taught.prompt])
    own = processor.image_processor(images=[_open(make.png(600, 700))], return_tensors="pt")
    assert len(seen) == 2 and own["image_grid_thw"].tolist() == [[1, 704 // 16, 608 // 16]]
    for pixels, grid in [*seen, (policys.pixel_values, policys.image_grid_thw)]:
        assert torch.equal(grid, own["image_grid_thw"]) and torch.equal(pixels, own["pixel_values"])


def _open(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_a6_in_training_mode_equal_texts_still_score_equally(make_scorer, make):
    scorer = make_scorer()
    scorer.model.train()
    first, second = _score(scorer, make.prompts(1), [0, 0], [make.response(), make.response()])
    assert DiscriminatorConfig().head_dropout == 0
    torch.testing.assert_close(first, second)


def _optimizer(scorer, rate=1e-3):
    return StageOptimizer(scorer.model, Optimizer(learning_rate=rate, weight_decay=0.0), 10)


def _update(scorer, optimizer, taught, students, config):
    """A whole step of the discriminator: its result, and what the step told."""
    result = score_and_accumulate(scorer, taught, students, config)
    return replace(result, metrics={**result.metrics, **step_discriminator(optimizer, result)})


class KeepGradients:
    """Stands where the optimizer is and leaves the gradients to be looked at."""

    def step(self, num_samples):
        return {}


def _router_gradient(make_scorer, make, coef):
    scorer, taught = make_scorer(), make.taught(2)
    same_as_teacher = [row.teacher for row in taught for _ in range(2)]
    config = AlignmentConfig(rollout=Rollout(group_size=2), score_reg_coef=0.0, balance_coef=coef)
    _update(scorer, KeepGradients(), taught, same_as_teacher, config)
    return scorer.model.model.language_model.layers[0].mlp.gate.weight.grad.abs().max().item()


def test_a7_the_online_update_balances_the_router(make_scorer, make):
    """With students equal to their teachers the preference has no gradient, so whatever pulls at the router is the balance loss."""
    assert AlignmentConfig().balance_coef > 0
    assert _router_gradient(make_scorer, make, 0.01) > 100 * _router_gradient(make_scorer, make, 0.0)


def test_a8_the_cot_is_judged_in_the_light_of_its_caption(make_scorer, make):
    told, otherwise = make.response(caption="- left digit 3"), make.response(caption="- left digit 9")
    seeing = _score(make_scorer(), make.prompts(1), [0, 0], [told, otherwise])
    blind = _score(make_scorer(cot_sees_caption=False), make.prompts(1), [0, 0], [told, otherwise])
    assert (seeing[0, 1] - seeing[1, 1]).abs() > 1e-3
    torch.testing.assert_close(blind[0, 1], blind[1, 1])


def test_a8_the_caption_scores_as_if_it_stood_alone(make_scorer, make):
    together = _score(make_scorer(), make.prompts(1), [0], [make.response()])
    alone = _score(make_scorer(cot_sees_caption=False), make.prompts(1), [0], [make.response()])
    torch.testing.assert_close(together[:, 0], alone[:, 0], atol=1e-4, rtol=1e-4)


def test_a10_a_step_without_a_valid_student_reports_no_accuracy_and_changes_nothing(make_scorer, make):
    scorer = make_scorer()
    before = {name: tensor.clone() for name, tensor in scorer.model.state_dict().items()}
    result = _update(scorer, _optimizer(scorer), make.taught(2), [None] * 4, AlignmentConfig(rollout=Rollout(group_size=2)))
    assert not any("acc" in name or "loss" in name for name in result.metrics)
    assert result.metrics["critic/valid_ratio"] == 0 and not result.valid_PN.any()
    assert all(torch.equal(tensor, scorer.model.state_dict()[name]) for name, tensor in before.items())


def test_a11_many_responses_at_once_score_as_each_alone(make_scorer, make):
    scorer, prompts = make_scorer(), make.prompts(3)
    responses = [make.response(), make.response(think=LONG[:300]), make.response(caption="- x"), make.response(answer="12")]
    prompt_of = [0, 1, 2, 0]
    together = _score(scorer, prompts, prompt_of, responses)
    alone = [_score(scorer, [prompts[row]], [0], [one])[0] for row, one in zip(prompt_of, responses, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


class Passes:
    """What a language model has read, pass by pass: rows and tokens of the input; and of how many images."""

    def __init__(self, backbone):
        self.shapes, self.images, self.first_layers = [], [], 0
        backbone.language_model.register_forward_pre_hook(self._language, with_kwargs=True)
        backbone.visual.register_forward_pre_hook(lambda module, given, named: self.images.append(len(named["grid_thw"])), with_kwargs=True)
        backbone.language_model.layers[0].mlp.register_forward_pre_hook(self._layer)

    def _language(self, module, given, named):
        self.shapes.append(tuple(named["inputs_embeds"].shape[:2]))

    def _layer(self, module, given):
        self.first_layers += 1


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a11_a_step_is_one_pass_that_reads_each_prompt_each_teacher_and_each_student_once(make_scorer, make, packed):
    """Upstream: a pass for each span of each student, prompt and image every time, and as many again for the teacher of each."""
    scorer, taught = make_scorer(packed=packed), make.taught(2)
    students = [make.response(think=LONG[: 40 * index]) for index in range(1, 9)]
    passes = Passes(scorer.model.model)
    score_and_accumulate(scorer, taught, students, AlignmentConfig(rollout=Rollout(group_size=4), micro_batch_size=8))
    prompts = [len(one.token_ids) for one in scorer.encoder.encode([row.prompt for row in taught])]
    responses = [len(row.token_ids) for one in (*(row.teacher for row in taught), *students) for row in _rows(scorer.encoder, one)]
    padded = [(2, max(prompts)), (2 + 8, max(responses))]
    assert len(responses) == 2 + 8 and passes.images == [2]
    assert passes.shapes == ([(1, sum(prompts) + sum(responses))] if packed else padded)


def _balance_gradients(scorer, make):
    pairs = [Pair(row, make.response(answer=str(number))) for number, row in enumerate(make.taught(2))]
    scorer.model.train()
    compare(scorer, pairs).balance.backward()
    return {name: one.grad.clone() for name, one in scorer.model.named_parameters() if one.grad is not None}


def test_b3_and_item_7_the_balance_loss_reaches_the_router_through_checkpoints(make_scorer, make):
    """Upstream keeps the logits of a pass without gradient, so that its balance loss is a constant wherever layers are checkpointed."""
    checkpointed, plain = make_scorer(packed=True), make_scorer(packed=True)
    plain.model.gradient_checkpointing_disable()
    passes = Passes(checkpointed.model.model)
    expected, found = _balance_gradients(plain, make), _balance_gradients(checkpointed, make)
    assert len(passes.shapes) == 1 and passes.first_layers == 2, "a checkpointed layer is computed again for its gradient"
    routers = [name for name in expected if name.endswith("mlp.gate.weight")]
    assert len(routers) == len(plain.model.model.language_model.layers) and found.keys() == expected.keys()
    assert all(expected[name].abs().max() > 1e-4 for name in routers)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_b2_the_longest_row_first_or_last_makes_no_difference(make_scorer, make):
    scorer, short, long = make_scorer(), make.response(), make.response(think=LONG[:400])
    forward = _score(scorer, make.prompts(1), [0, 0], [long, short])
    backward = _score(scorer, make.prompts(1), [0, 0], [short, long])
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=1e-5)


def _students(make):
    """Eight of four prompts; the last prompt has none in the right format."""
    return [make.response(think=f"{index} against 1 gives {index}") if index % 3 and index < 6 else None for index in range(8)]


def test_the_update_prefers_the_teacher(make_scorer, make):
    scorer, taught, students = make_scorer(), make.taught(4), _students(make)
    config, optimizer = AlignmentConfig(rollout=Rollout(group_size=2)), _optimizer(scorer, 1e-4)
    results = [_update(scorer, optimizer, taught, students, config) for _ in range(6)]
    assert results[-1].metrics["critic/d_loss"] < results[0].metrics["critic/d_loss"]
    assert results[-1].metrics["critic/caption_gap"] > results[0].metrics["critic/caption_gap"]
    assert results[0].valid_PN.flatten().tolist() == [one is not None for one in students]


def _update_gradients(make_scorer, make, micro):
    scorer = make_scorer()
    config = AlignmentConfig(rollout=Rollout(group_size=2), micro_batch_size=micro)
    _update(scorer, KeepGradients(), make.taught(4), _students(make), config)
    return {name: parameter.grad.clone() for name, parameter in scorer.model.named_parameters() if parameter.grad is not None}


def test_micro_batches_of_the_update_add_up_to_the_whole(make_scorer, make):
    """Also when one of them has no valid student."""
    whole, parts = (_update_gradients(make_scorer, make, micro) for micro in (8, 2))
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-4 * float(gradient.abs().max()) + 1e-8, rtol=1e-2, msg=name)


def test_the_teachers_that_cannot_be_read_are_named_before_the_first_step(make_scorer, make):
    scorer = make_scorer()
    taught = replace(make.taught(1)[0], teacher=make.response(think=LONG * 3))
    with pytest.raises(DataError, match=r"teacher of prompt p:0: a response of \d+ tokens is above the limit of 4096"):
        scorer.require_readable([taught])


def test_a_student_that_is_too_long_is_invalid_in_a_step_of_alignment(make_scorer, make):
    scorer = replace(make_scorer(), max_tokens=128)
    config = AlignmentConfig(rollout=Rollout(group_size=2))
    drawn = [make.response(), make.response(think=LONG), None, make.response(think=LONG)]
    read = only_readable(drawn, scorer.encoder, scorer.max_tokens)
    result = score_and_accumulate(scorer, make.taught(2), read, config)
    assert result.valid_PN.flatten().tolist() == [True, False, False, False]
    assert result.metrics["critic/valid_ratio"] == 0.25
    assert result.caption_PN[0, 0] != 0 and result.caption_PN[0, 1] == 0


@pytest.mark.parametrize("text", ["3 plus 4 gives 7", "\u0958\ufb2c\u0390" * 7, "\U0001d160\U0001f9d1\u200d\U0001f680 \x00"])
def test_what_is_readable_is_what_can_be_scored(encoder, make, text):
    """Also of letters that normalising makes longer."""
    response = make.response(caption=text, think=f"{text} {text}", answer=text)
    count = len(_rows(encoder, response)[0].token_ids)
    assert [is_readable(response, encoder.response_ids, limit) for limit in (count - 1, count, 3 * count, 10_000)] == [
        False,
        True,
        True,
        True,
    ]
