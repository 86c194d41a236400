"""Attention of a packed row: exact, without padding, without a mask, and without a copy of the prompt's keys for each response.

Every row token attends to its own row and to its prompt. The two softmaxes are computed apart, by a kernel that also gives the log of
its denominator, and put together: with l the log-denominators, out = sum_i out_i exp(l_i - l), l = log sum_i exp(l_i) (as in
FlashAttention's split of the keys, arXiv 2205.14135, and Ring Attention, arXiv 2310.01889). The backward pass of each part, given the
joint `out` and `l` in place of its own, yields exactly that part's share of the gradient, for P = exp(S - l) and rowsum(dO * O) are then
those of the whole softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prism_trainer.packed import dense_kernel, flash_kernel
from prism_trainer.packed.layout import Layout, Spans


def attend(query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, layout: Layout, scale: float) -> Tensor:
    """(T, heads, D) queries over (T, key heads, D) keys and values; key heads divide heads."""
    return _PackedAttention.apply(query_THD, key_TKD, value_TKD, layout, scale)  # type: ignore[no-any-return, no-untyped-call]


def attend_spans(query_THD: Tensor, key_THD: Tensor, value_THD: Tensor, spans: Spans, scale: float) -> Tensor:
    """(T, heads, D): every token attends to all of its own span."""
    return _SpanAttention.apply(query_THD, key_THD, value_THD, spans, scale)  # type: ignore[no-any-return, no-untyped-call]


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        kernel = _kernel(query)
        out, log_sum = kernel.forward(query, key, value, layout.within, causal=True, scale=scale)
        first = layout.num_prompt_tokens
        if first < len(query):
            seen, log_seen = kernel.forward(query[first:], key[:first], value[:first], layout.across, causal=False, scale=scale)
            _join(out[first:], log_sum[:, first:], seen, log_seen)
        ctx.save_for_backward(query, key, value, out, log_sum)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sum = ctx.saved_tensors
        layout, scale, grad = ctx.layout, ctx.scale, grads[0].contiguous()
        kernel = _kernel(query)
        d_query, d_key, d_value = kernel.backward(grad, query, key, value, out, log_sum, layout.within, causal=True, scale=scale)
        first = layout.num_prompt_tokens
        if first < len(query):
            rows = (grad[first:], query[first:], key[:first], value[:first], out[first:], log_sum[:, first:].contiguous())
            across = kernel.backward(*rows, layout.across, causal=False, scale=scale)
            d_query[first:] += across[0]
            d_key[:first] += across[1]
            d_value[:first] += across[2]
        return d_query, d_key, d_value, None, None


class _SpanAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> Tensor:
        out, log_sum = _kernel(query).forward(query, key, value, spans, causal=False, scale=scale)
        ctx.save_for_backward(query, key, value, out, log_sum)
        ctx.spans, ctx.scale = spans, scale
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, *rest = ctx.saved_tensors
        gradients = _kernel(query).backward(grads[0].contiguous(), query, *rest, ctx.spans, causal=False, scale=ctx.scale)
        return *gradients, None, None


def _kernel(tensor: Tensor) -> Any:
    return flash_kernel if tensor.is_cuda and tensor.dtype in (torch.bfloat16, torch.float16) else dense_kernel


def _join(own_THD: Tensor, log_own_HT: Tensor, seen_THD: Tensor, log_seen_HT: Tensor) -> None:
    """The first two become those of the joint softmax."""
    if own_THD.is_cuda:
        from prism_trainer.packed import triton_kernels

        return triton_kernels.join(own_THD, log_own_HT, seen_THD, log_seen_HT)
    share = torch.sigmoid(log_own_HT - log_seen_HT).T.unsqueeze(-1)
    own_THD.copy_(own_THD * share + seen_THD * (1 - share))
    log_own_HT.copy_(torch.logaddexp(log_own_HT, log_seen_HT))
    return None
