"""The experts' gate, forward and backward, and the join of two softmaxes as one pass over memory each. Triton, for a GPU.

Left to the compiler the gate's backward pass is three passes, and a fifth of an update's time at true size. Index arithmetic is in 64
bits, because 100,000 tokens of 2 experts have more gate values than 32 can count.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def gate(inner_SI: Tensor, weights_S: Tensor) -> Tensor:
    """silu(gate) * up * weight, (S, I) of (S, 2I)."""
    rows, width = inner_SI.shape[0], inner_SI.shape[1] // 2
    out = inner_SI.new_empty(rows, width)
    _gate[(rows, triton.cdiv(width, BLOCK))](inner_SI, weights_S, out, width, BLOCK=BLOCK)
    return out


def gate_backward(d_gated_SI: Tensor, inner_SI: Tensor, weights_S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gated rows again, and the gradients of `inner_SI` and of the weights (S,)."""
    rows, width = d_gated_SI.shape
    gated, d_inner, d_weights = torch.empty_like(d_gated_SI), torch.empty_like(inner_SI), torch.empty_like(weights_S)
    _gate_backward[(rows,)](d_gated_SI, inner_SI, weights_S, gated, d_inner, d_weights, width, BLOCK=BLOCK)
    return gated, d_inner, d_weights


def join(own_THD: Tensor, log_own_HT: Tensor, seen_THD: Tensor, log_seen_HT: Tensor) -> None:
    """`own_THD` and `log_own_HT` become those of the joint softmax; the logs' tokens lie side by side in memory."""
    tokens, heads, size = own_THD.shape
    width = triton.next_power_of_2(heads * size)
    strides = (log_own_HT.stride(0), log_seen_HT.stride(0))
    _join[(tokens,)](own_THD, log_own_HT, seen_THD, log_seen_HT, *strides, heads, size, BLOCK=width, HEADS=triton.next_power_of_2(heads))


@triton.jit
def _gate(inner, weights, out, width: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(inner + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(inner + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weights + row).to(tl.float32)
    tl.store(out + row * width + column, (gate * tl.sigmoid(gate) * up * weight).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate_backward(d_gated, inner, weights, gated, d_inner, d_weights, width: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    weight = tl.load(weights + row).to(tl.float32)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < width
        gate = tl.load(inner + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(inner + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(d_gated + row * width + column, mask=inside, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        active = gate * sigmoid
        plain = active * up
        total += grad * plain
        d_plain = grad * weight
        d_gate = d_plain * up * sigmoid * (1 + gate * (1 - sigmoid))
        tl.store(gated + row * width + column, (plain * weight).to(gated.dtype.element_ty), mask=inside)
        tl.store(d_inner + row * 2 * width + column, d_gate.to(d_inner.dtype.element_ty), mask=inside)
        tl.store(d_inner + row * 2 * width + width + column, (d_plain * active).to(d_inner.dtype.element_ty), mask=inside)
    tl.store(d_weights + row, tl.sum(total).to(d_weights.dtype.element_ty))


@triton.jit
def _join(
    own, log_own, seen, log_seen, own_stride, seen_stride, heads: tl.constexpr, size: tl.constexpr, BLOCK: tl.constexpr, HEADS: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside, head = place < heads * size, place // size
    left = tl.load(log_own + head * own_stride + token, mask=inside, other=0.0)
    right = tl.load(log_seen + head * seen_stride + token, mask=inside, other=0.0)
    share = tl.sigmoid(left - right)
    mine = tl.load(own + token * heads * size + place, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(seen + token * heads * size + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(own + token * heads * size + place, (mine * share + other * (1 - share)).to(own.dtype.element_ty), mask=inside)
    one = tl.arange(0, HEADS)
    left = tl.load(log_own + one * own_stride + token, mask=one < heads, other=0.0)
    right = tl.load(log_seen + one * seen_stride + token, mask=one < heads, other=0.0)
    high = tl.maximum(left, right)
    tl.debug_barrier()  # the logs are read above by every part of the block and written here
    tl.store(log_own + one * own_stride + token, high + tl.log(tl.exp(left - high) + tl.exp(right - high)), mask=one < heads)
