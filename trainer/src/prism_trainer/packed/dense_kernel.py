"""The same as `flash_kernel`, written out: any precision, any device, one run after another. For CPUs and as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from prism_trainer.packed.layout import Spans


def forward(query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output (T, heads, D) and log-denominator (heads, T)."""
    out, log_sum = torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0])
    groups = query.shape[1] // key.shape[1]
    for own, seen in _runs(spans):
        scores = _scores(query[own], key[seen], causal, scale)
        log_sum[:, own] = scores.logsumexp(dim=-1)
        weights = (scores - log_sum[:, own].unsqueeze(-1)).exp()
        out[own] = torch.einsum("hqk,khd->qhd", weights, value[seen].repeat_interleave(groups, dim=1))
    return out, log_sum


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    spans: Spans,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    d_query, d_key, d_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    groups = query.shape[1] // key.shape[1]
    for own, seen in _runs(spans):
        weights = (_scores(query[own], key[seen], causal, scale) - log_sum[:, own].unsqueeze(-1)).exp()
        d_value[seen] = _per_key_head(torch.einsum("hqk,qhd->khd", weights, grad[own]), groups)
        d_weights = torch.einsum("qhd,khd->hqk", grad[own], value[seen].repeat_interleave(groups, dim=1))
        level = (grad[own] * out[own]).sum(dim=-1).T.unsqueeze(-1)
        d_scores = weights * (d_weights - level) * scale
        d_query[own] = torch.einsum("hqk,khd->qhd", d_scores, key[seen].repeat_interleave(groups, dim=1))
        d_key[seen] = _per_key_head(torch.einsum("hqk,qhd->khd", d_scores, query[own]), groups)
    return d_query, d_key, d_value


def _runs(spans: Spans) -> Iterator[tuple[slice, slice]]:
    query_starts, key_starts = ([0, *accumulate(lengths)] for lengths in (spans.queries, spans.keys))
    for index in range(len(spans.queries)):
        yield slice(*query_starts[index : index + 2]), slice(*key_starts[index : index + 2])


def _scores(query_QHD: Tensor, key_KGD: Tensor, causal: bool, scale: float) -> Tensor:
    scores = torch.einsum("qhd,khd->hqk", query_QHD, key_KGD.repeat_interleave(query_QHD.shape[1] // key_KGD.shape[1], dim=1)) * scale
    if causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return scores


def _per_key_head(tensor_KHD: Tensor, groups: int) -> Tensor:
    return tensor_KHD.unflatten(1, (-1, groups)).sum(dim=2)
