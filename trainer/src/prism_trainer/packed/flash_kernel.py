"""FlashAttention over runs of different lengths, as torch carries it (2.11: version 2 of the algorithm; bf16 or fp16, on a GPU).

The operators behind `torch.nn.attention.varlen`, called directly because a part's backward pass needs the joint log-denominator, which
the public function does not take. Key heads may be fewer than heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prism_trainer.packed.layout import Spans


def forward(query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output (T, heads, D) and log-denominator (heads, T) in float32."""
    out, log_sum, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, spans.query_starts, spans.key_starts, max(spans.queries), max(spans.keys), 0.0, causal, False, scale=scale
    )
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
    starts = (spans.query_starts, spans.key_starts, max(spans.queries), max(spans.keys))
    no_dropout = (torch.zeros(2, dtype=torch.uint64, device=query.device), torch.empty(0, device=query.device))
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        grad, query, key, value, out, log_sum, *starts, 0.0, causal, *no_dropout, scale=scale
    )
    return gradients
