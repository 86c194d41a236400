"""Log-probabilities of rows' tokens: the states they were drawn from, and what the head makes of them without all logits at once.

A row of 8,192 tokens has 5 GB of float32 logits over Qwen's 151,936 tokens, and as much again for each step from there to the loss. Here
they exist for `CHUNK` tokens at a time and are computed anew in the backward pass. Exact: tokens do not meet in the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from prism_trainer.packed.backbone import PaddedPrompts, read_packed

CHUNK = 2048


def states_before(
    backbone: nn.Module, prompts: PaddedPrompts, rows: Sequence[Sequence[int]], prompt_of: Sequence[int], image_token_id: int
) -> Tensor:
    """Hidden states (N, H) from which each of the rows' N tokens was drawn, row after row as given: the first of a row from its prompt."""
    order = sorted(range(len(rows)), key=prompt_of.__getitem__)
    states = read_packed(backbone, prompts, [rows[row] for row in order], [prompt_of[row] for row in order], image_token_id)
    start_of = dict(zip(order, states.layout.row_starts, strict=True))
    prompt_ends = list(accumulate(states.layout.prompt_lengths))
    before = [
        place
        for row, tokens in enumerate(rows)
        for place in [prompt_ends[prompt_of[row]] - 1, *range(start_of[row], start_of[row] + len(tokens))][: len(tokens)]
    ]
    return states.hidden_TH[torch.tensor(before, device=states.hidden_TH.device)]


def chosen_log_probs(
    hidden_TH: Tensor, head_VH: Tensor, chosen_T: Tensor, temperature: float, forbidden_V: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Of each chosen token, and the entropy of what it was chosen from, without gradient; both (T,) in float32."""
    if len(hidden_TH) <= chunk:
        return _some(hidden_TH, head_VH, chosen_T, temperature, forbidden_V)
    parts = [
        checkpoint(_some, hidden, head_VH, chosen, temperature, forbidden_V, use_reentrant=False)
        for hidden, chosen in zip(hidden_TH.split(chunk), chosen_T.split(chunk), strict=True)
    ]
    return torch.cat([log_probs for log_probs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _some(hidden_TH: Tensor, head_VH: Tensor, chosen_T: Tensor, temperature: float, forbidden_V: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = functional.linear(hidden_TH, head_VH).float() / temperature
    if forbidden_V is not None:
        logits = logits.masked_fill(forbidden_V, -1e9)
    log_probs = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return log_probs.gather(1, chosen_T.unsqueeze(1)).squeeze(1), entropy
