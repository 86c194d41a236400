"""The experts' feed-forward blocks of all tokens at once: one grouped matrix product a projection, tokens sorted by expert.

With w the router's weight of a token's expert, x its state, and G, U, D the expert's gate, up and down matrices:

    out = sum over the token's experts of  D (w silu(G x) (U x))

The weight goes in before D and not after it, which is the same and spares keeping D's output for the backward pass: beside its inputs
only [G x, U x] is kept. transformers' `grouped_mm` computes the same; its backward pass adds rows up by atomics and keeps six tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from prism_trainer.packed.fusion import fused


def mix_experts(states_TH: Tensor, gate_up_EIH: Tensor, down_EHI: Tensor, weights_TK: Tensor, experts_TK: Tensor) -> Tensor:
    """`gate_up_EIH` (E, 2I, H), gate rows first; `experts_TK` the K experts of each token, `weights_TK` theirs. Output (T, H)."""
    gate_up, down = gate_up_EIH.to(states_TH.dtype), down_EHI.to(states_TH.dtype)
    return _Experts.apply(states_TH, gate_up, down, weights_TK, experts_TK)  # type: ignore[no-any-return, no-untyped-call]


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        count, num_experts = experts.shape[1], len(down)
        order = experts.flatten().argsort(stable=True)
        ends = _count(experts, num_experts).cumsum(0, dtype=torch.int32)
        sorted_weights = weights.flatten()[order]
        inner = functional.grouped_mm(states[order // count], gate_up.transpose(1, 2), offs=ends)
        out = functional.grouped_mm(_gate(inner, sorted_weights), down.transpose(1, 2), offs=ends)
        ctx.save_for_backward(states, gate_up, down, sorted_weights, order, ends, inner)
        return _gather_sum(out, _inverse(order), count)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, gate_up, down, weights, order, ends, inner = ctx.saved_tensors
        count = len(order) // len(states)
        back, rows = _inverse(order), order // count
        d_out = grads[0][rows]
        d_gated = functional.grouped_mm(d_out, down, offs=ends)
        gated, d_inner, d_weights = _gate_backward(d_gated, inner, weights)
        d_down = functional.grouped_mm(d_out.T, gated, offs=ends)
        d_gate_up = functional.grouped_mm(d_inner.T, states[rows], offs=ends)
        d_states = _gather_sum(functional.grouped_mm(d_inner, gate_up, offs=ends), back, count)
        return d_states, d_gate_up, d_down, d_weights[back].view(-1, count), None


def _count(experts: Tensor, num_experts: int) -> Tensor:
    """Tokens of each expert, (E,), without waiting for the device as `bincount` does."""
    return functional.one_hot(experts.flatten(), num_experts).sum(dim=0)


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse


@fused
def _gather_sum(rows_SH: Tensor, back_S: Tensor, count: int) -> Tensor:
    """The rows of each token, wherever sorting put them, added in float32; (T, H)."""
    return rows_SH[back_S].view(-1, count, rows_SH.shape[1]).float().sum(dim=1).to(rows_SH.dtype)


def _gate(inner_SI: Tensor, weights_S: Tensor) -> Tensor:
    if inner_SI.is_cuda:
        from prism_trainer.packed import triton_kernels

        return triton_kernels.gate(inner_SI, weights_S)
    gate, up = inner_SI.float().chunk(2, dim=-1)
    return (functional.silu(gate) * up * weights_S.float().unsqueeze(1)).to(inner_SI.dtype)


def _gate_backward(d_gated_SI: Tensor, inner_SI: Tensor, weights_S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gated rows again, and the gradients of `inner_SI` and of the weights (S,)."""
    if inner_SI.is_cuda:
        from prism_trainer.packed import triton_kernels

        return triton_kernels.gate_backward(d_gated_SI, inner_SI, weights_S)
    gate, up = inner_SI.float().chunk(2, dim=-1)
    grad, weight = d_gated_SI.float(), weights_S.float().unsqueeze(1)
    sigmoid = torch.sigmoid(gate)
    active = gate * sigmoid
    plain = active * up
    d_plain = grad * weight
    d_inner = torch.cat([d_plain * up * sigmoid * (1 + gate * (1 - sigmoid)), d_plain * active], dim=-1)
    dtype = inner_SI.dtype
    return (plain * weight).to(dtype), d_inner.to(dtype), (grad * plain).sum(dim=1).to(weights_S.dtype)
