"""One packed row: the same scores, losses and gradients as the plain way, one sample a forward and nothing shared."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from transformers import Qwen3VLMoeTextConfig
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextSparseMoeBlock

from prism_trainer.discriminator.losses import bradley_terry, router_load
from prism_trainer.discriminator.spans import scored_rows
from prism_trainer.engines.local.update import score_tokens
from prism_trainer.packed import vision
from prism_trainer.packed.attention import attend
from prism_trainer.packed.backbone import _feed_forward, read_packed, use_packed_kernels
from prism_trainer.packed.binding import bind
from prism_trainer.packed.experts import mix_experts
from prism_trainer.packed.layout import Layout
from prism_trainer.packed.log_probs import chosen_log_probs
from prism_trainer.packed.vision import image_spans

CPU = torch.device("cpu")
PROMPT_OF = [0, 0, 0, 1, 2, 2]


def _responses(make):
    """Uneven: captions and cots of one word to some hundreds of tokens."""
    long = " ".join(["3 plus 4 gives 7"] * 40)
    return [
        make.response(),
        make.response(think=long),
        make.response(caption="- x", answer="12"),
        make.response(caption=f"- {long}", think="so"),
        make.response(answer="9"),
        make.response(think="7"),
    ]


def _plain_scores(scorer, prompt, response):
    """Upstream's way with our presentation: each span of each response alone after its prompt, image and all."""
    model, encoder = scorer.model, scorer.encoder
    rows = scored_rows(response, encoder.response_ids, cot_sees_caption=model.config.cot_sees_caption, max_tokens=4096)
    encoded = encoder.encode([prompt])[0]
    scores, logits = {}, []
    for row in rows:
        ids = torch.tensor([[*encoded.token_ids.tolist(), *row.token_ids]])
        images = {"pixel_values": encoded.pixel_values, "image_grid_thw": encoded.image_grid_thw} if len(encoded.image_grid_thw) else {}
        out = model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == encoder.image_token_id).int(),
            output_router_logits=True,
            **images,
        )
        first = len(encoded.token_ids)
        for name, at in (("caption", row.caption_at), ("cot", row.cot_at)):
            if at is not None:
                scores[name] = model.read_scores(out.last_hidden_state[0, first + at])
        routed = getattr(out, "router_logits", None) or ()
        logits.append(([one[:first] for one in routed], [one[first:] for one in routed]))
    return scores["caption"], scores["cot"], logits


def _plain(scorer, prompts, responses):
    """(R,) captions, (R,) cots and the balance over each prompt's tokens once and all responses'."""
    singles = [_plain_scores(scorer, prompts[prompt], one) for prompt, one in zip(PROMPT_OF, responses, strict=True)]
    parts = [singles[PROMPT_OF.index(prompt)][2][0][0] for prompt in sorted(set(PROMPT_OF))]
    parts += [own for _, _, logits in singles for _, own in logits]
    layers = [torch.cat(layer) for layer in zip(*parts, strict=True)]
    if not layers:
        return torch.stack([one[0] for one in singles]), torch.stack([one[1] for one in singles]), torch.zeros(())
    balance = router_load(layers, torch.zeros(len(layers[0]), dtype=torch.long), 1, 2).balance().squeeze(0)
    return torch.stack([one[0] for one in singles]), torch.stack([one[1] for one in singles]), balance


def _loss(caption, cot, balance):
    """The first response of each prompt is its teacher."""
    margins = torch.cat([scores[[0, 0, 4]] - scores[[1, 2, 5]] for scores in (caption, cot)])
    return bradley_terry(margins, torch.zeros_like(margins)).mean() + 0.01 * balance


def _gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("backbone", ["moe", "dense", "text"])
@pytest.mark.parametrize("sees", [True, False], ids=["one row", "two rows"])
def test_a_packed_row_has_the_scores_the_loss_and_the_gradients_of_the_plain_way(make_scorer, make, backbone, sees):
    scorer = make_scorer(cot_sees_caption=sees, backbone=backbone)
    images = backbone != "text"
    prompts, responses = make.prompts(3), _responses(make)
    shown = prompts if images else [type(one)(f"{one.id} blind", one.question, ()) for one in prompts]
    plain = _plain(scorer, shown, responses)
    expected = _gradients(scorer.model, _loss(*plain))

    scorer = replace(scorer, packed=True)
    scorer.model.train()
    scores = scorer.score(scorer.collate(prompts), PROMPT_OF, responses)
    torch.testing.assert_close(scores.caption_R, plain[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores.cot_R, plain[1], atol=1e-4, rtol=1e-4)
    loss = _loss(scores.caption_R, scores.cot_R, scores.balance)
    torch.testing.assert_close(loss, _loss(*plain), atol=1e-5, rtol=1e-5)
    found = _gradients(scorer.model, loss)
    assert found.keys() == expected.keys() and any("visual" in name for name in found) == images
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-3 * float(gradient.abs().max() + 1e-6), rtol=1e-2, msg=name)


def test_responses_may_come_in_any_order_of_their_prompts(make_scorer, make):
    scorer, prompts, responses = make_scorer(packed=True), make.prompts(3), _responses(make)
    with torch.no_grad():
        there = scorer.score(scorer.collate(prompts), PROMPT_OF, responses)
        back = scorer.score(scorer.collate(prompts), PROMPT_OF[::-1], responses[::-1])
    torch.testing.assert_close(there.cot_R, back.cot_R.flip(0))
    torch.testing.assert_close(there.caption_tokens_R, back.caption_tokens_R.flip(0))


def test_the_packed_kernels_leave_the_plain_way_as_it_was(make_scorer, make):
    scorer, prompts = make_scorer(), make.prompts(1)
    with torch.no_grad():
        before = _plain_scores(scorer, prompts[0], make.response())
        after = _plain_scores(replace(scorer, packed=True), prompts[0], make.response())
    torch.testing.assert_close(before[:2], after[:2], atol=1e-5, rtol=1e-5)


def _qkv(tokens, heads=4, key_heads=2, size=8):
    generator = torch.Generator().manual_seed(0)
    shapes = ((tokens, heads, size), (tokens, key_heads, size), (tokens, key_heads, size))
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def _by_mask(query, key, value, layout):
    """The whole (T, T) mask, written from the layout's meaning."""
    owner = [*range(len(layout.prompt_lengths)), *layout.prompt_of]
    lengths = torch.tensor([*layout.prompt_lengths, *layout.row_lengths])
    segment = torch.arange(len(lengths)).repeat_interleave(lengths)
    prompt = torch.tensor(owner).repeat_interleave(lengths)
    place = torch.arange(len(segment))
    same = (segment[:, None] == segment) & (place[:, None] >= place)
    sees = same | ((prompt[:, None] == prompt) & (segment < len(layout.prompt_lengths)) & (segment[:, None] >= len(layout.prompt_lengths)))
    heads = [one.transpose(0, 1).unsqueeze(0) for one in (query, key, value)]
    return functional.scaled_dot_product_attention(*heads, attn_mask=sees, enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize(
    ("prompts", "rows", "prompt_of"),
    [
        ([3, 2], [1, 4, 2], [0, 0, 1]),
        ([5], [7], [0]),
        ([4, 1, 3], [2, 2], [0, 2]),
        ([6, 2], [], []),
    ],
    ids=["two prompts", "one row", "a prompt without rows", "prompts alone"],
)
def test_attention_in_two_parts_is_attention_by_the_tree_mask(prompts, rows, prompt_of):
    layout = Layout.of(prompts, rows, prompt_of, CPU)
    inputs = _qkv(sum(prompts) + sum(rows))
    ours, masked = attend(*inputs, layout, 8**-0.5), _by_mask(*inputs, layout)
    torch.testing.assert_close(ours, masked)
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((ours * direction).sum(), inputs), torch.autograd.grad((masked * direction).sum(), inputs)
    )


def test_rows_that_are_not_grouped_by_prompt_are_refused():
    with pytest.raises(ValueError, match="not grouped by prompt"):
        Layout.of([2, 2], [1, 1, 1], [0, 1, 0], CPU)


def _block():
    config = Qwen3VLMoeTextConfig(hidden_size=16, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    block = Qwen3VLMoeTextSparseMoeBlock(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return block


@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_experts_at_once_have_the_output_and_the_gradients_of_a_loop_over_experts(tokens):
    block = _block()
    states = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    direction = torch.randn(tokens, 16, generator=torch.Generator().manual_seed(2))
    inputs = [states, *block.parameters()]
    looped = block(states.unsqueeze(0))[0]
    expected = torch.autograd.grad((looped * direction).sum(), inputs)
    _, weights, chosen = block.gate(states)
    ours = mix_experts(states, block.experts.gate_up_proj, block.experts.down_proj, weights, chosen)
    torch.testing.assert_close(ours, looped, atol=1e-5, rtol=1e-4)
    for found, wanted in zip(torch.autograd.grad((ours * direction).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_the_hidden_states_of_a_row_do_not_depend_on_its_neighbours(policy, encoder, make):
    use_packed_kernels(policy.model)
    prompts = encoder.collate(make.prompts(2))
    with torch.no_grad():
        together = read_packed(policy.model, prompts, [[20, 30, 40], [21], [22, 32]], [0, 0, 1], encoder.image_token_id)
        alone = read_packed(policy.model, encoder.collate(make.prompts(2)[1:]), [[22, 32]], [0], encoder.image_token_id)
    torch.testing.assert_close(together.hidden_TH[-2:], alone.hidden_TH[-2:], atol=1e-5, rtol=1e-5)


def _responses_of(vocabulary_size, lengths):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(20, vocabulary_size - 80, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def test_a_packed_policy_update_has_the_log_probabilities_and_gradients_of_the_padded_one(policy, encoder, vocabulary, make):
    ids, mask = _responses_of(policy.config.text_config.vocab_size, [3, 7, 1, 5])
    prompts, rows = encoder.collate(make.prompts(3)), torch.tensor([1, 0, 2, 0])

    def of(packed):
        scores = score_tokens(policy, prompts, rows, ids, mask, 0.7, vocabulary, encoder.image_token_id, packed=packed)
        return scores, _gradients(policy, (scores.log_probs_RT * mask).sum())

    (padded, expected), _ = of(False), use_packed_kernels(policy.model)
    packed, found = of(True)
    torch.testing.assert_close(packed.log_probs_RT, padded.log_probs_RT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed.entropy_RT, padded.entropy_RT, atol=1e-4, rtol=1e-4)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-3 * float(gradient.abs().max() + 1e-6), rtol=1e-2, msg=name)


def test_log_probabilities_in_chunks_are_those_of_all_logits_at_once():
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in ((11, 6), (40, 6)))
    chosen, forbidden = torch.randint(0, 35, (11,), generator=generator), torch.arange(40) >= 35
    logits = (hidden @ head.T / 0.7).masked_fill(forbidden, -1e9)
    whole = torch.log_softmax(logits.float(), dim=-1).gather(1, chosen.unsqueeze(1)).squeeze(1)
    chunked, entropy = chosen_log_probs(hidden, head, chosen, 0.7, forbidden, chunk=4)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits.float()).entropy())
    weights = torch.randn(11, generator=generator)
    for found, wanted in zip(*(torch.autograd.grad((one * weights).sum(), (hidden, head)) for one in (chunked, whole)), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("field", "value"), [("attention_dropout", 0.1), ("hidden_act", "gelu")])
def test_a_model_that_the_packed_kernels_would_compute_otherwise_is_refused(policy, field, value):
    setattr(policy.model.language_model.layers[0].self_attn.config, field, value)
    with pytest.raises(ValueError, match=str(value)):
        use_packed_kernels(policy.model)


@pytest.mark.parametrize("grids", [[[1, 4, 6], [1, 2, 2], [1, 8, 4]], [[3, 4, 4]]], ids=["three images", "a film of three frames"])
def test_all_images_at_once_have_the_features_and_the_gradients_of_one_after_another(make_scorer, grids):
    tower, grid = make_scorer().model.model.visual, torch.tensor(grids)
    pixels = torch.randn(int(grid.prod(dim=1).sum()), 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(0))

    def result(**given):
        out = type(tower).forward(tower, pixels, grid, **given)
        features = [out.pooler_output, *out.deepstack_features]
        return features, _gradients(tower, sum(one.square().mean() for one in features))

    alone, expected = result()
    for block in tower.blocks:
        bind(block.attn, vision._attention)
    found = result(spans=image_spans(grid))
    torch.testing.assert_close(found[0], alone, atol=1e-5, rtol=1e-4)
    assert found[1].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4 * float(gradient.abs().max() + 1e-6), rtol=1e-3, msg=name)


def test_the_feed_forward_of_a_dense_layer_is_transformers_own(make_scorer):
    layer = make_scorer(backbone="dense").model.model.language_model.layers[0].mlp
    states = torch.randn(1, 7, layer.hidden_size)
    torch.testing.assert_close(_feed_forward(layer, states), type(layer).forward(layer, states))


@pytest.mark.parametrize("recompute", [True, False])
def test_the_layers_of_a_packed_row_are_computed_again_unless_told_not_to(make_scorer, recompute):
    scorer = replace(make_scorer(), packed=True, recompute=recompute)
    assert scorer.model.is_gradient_checkpointing is recompute
