"""One prompt, many continuations: the same numbers and gradients as whole sequences."""

import torch

from prism_trainer.engines.local.encoding import pad_right
from prism_trainer.engines.local.prefix import continue_prefix, encode_prefix


def _whole(backbone, encoder, prompt, continuation):
    """The model's own way: one unpadded row, its own positions."""
    encoded = encoder.encode([prompt])[0]
    ids = torch.tensor([[*encoded.token_ids.tolist(), *continuation]])
    out = backbone(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == encoder.image_token_id).int(),
        pixel_values=encoded.pixel_values,
        image_grid_thw=encoded.image_grid_thw,
    )
    return out.last_hidden_state[0, len(encoded.token_ids) :]


CONTINUATIONS = [(0, [20, 30, 40, 50]), (0, [21, 31]), (1, [22, 32, 42]), (2, [23]), (2, [20, 30, 40, 50])]


def test_a3_continuations_see_what_whole_sequences_see(policy, encoder, make):
    prompts = make.prompts()
    rows = torch.tensor([row for row, _ in CONTINUATIONS])
    ids, mask = pad_right([tokens for _, tokens in CONTINUATIONS], 0)
    with torch.no_grad():
        prefix = encode_prefix(policy.model, encoder.collate(prompts), encoder.image_token_id)
        hidden = continue_prefix(policy.model, prefix, rows, ids, mask).hidden_RTH
        for index, (row, tokens) in enumerate(CONTINUATIONS):
            expected = _whole(policy.model, encoder, prompts[row], tokens)
            torch.testing.assert_close(hidden[index, : len(tokens)], expected, atol=1e-4, rtol=1e-4)


def test_gradients_through_a_shared_prompt_equal_those_of_whole_sequences(policy, encoder, make):
    prompts = make.prompts()

    def gradients(loss):
        policy.zero_grad()
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in policy.model.named_parameters() if parameter.grad is not None}

    rows = torch.tensor([row for row, _ in CONTINUATIONS])
    ids, mask = pad_right([tokens for _, tokens in CONTINUATIONS], 0)
    direction = torch.randn(192, generator=torch.Generator().manual_seed(0))
    prefix = encode_prefix(policy.model, encoder.collate(prompts), encoder.image_token_id)
    hidden = continue_prefix(policy.model, prefix, rows, ids, mask).hidden_RTH
    shared = gradients((hidden @ direction * mask).sum())
    whole = gradients(sum((_whole(policy.model, encoder, prompts[row], tokens) @ direction).sum() for row, tokens in CONTINUATIONS))
    assert shared.keys() == whole.keys() and any("visual" in name for name in shared)
    for name, gradient in whole.items():
        torch.testing.assert_close(shared[name], gradient, atol=2e-3 * float(gradient.abs().max() + 1e-6), rtol=1e-2, msg=name)
